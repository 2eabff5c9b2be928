// A vCenter to test with: govmomi's own simulator (which its vcsim is a command around) with one machine
// whose disk has a snapshot for each raw file of a folder.
//
// The simulator knows no changed block tracking. That part is a fake: a changeId counts snapshots, and
// QueryChangedDiskAreas compares their files. Paths below /test/ tell what was called, end all sessions,
// and have calls fail.
package main

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	version = "0.52.0"
	// What changeIds begin with.
	life = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/"
	// What is tracked in one piece.
	piece = 64 << 10
	// Areas in one answer: few, so that there are several.
	most = 3
)

// What is asked for and what has been done, by the names of calls.
type world struct {
	mutex   sync.Mutex
	calls   map[string]int
	failing map[string]failure
	// Sessions that were seen, and whether they may still be used.
	cookies map[string]bool

	vm    types.ManagedObjectReference
	key   int32
	files map[types.ManagedObjectReference]string
	// By the number in a changeId, from 1.
	states []string
}

type failure struct {
	fault types.BaseMethodFault
	left  int
}

// Before each call.
func (w *world) called(_ *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.calls[method.Name]++
	if f := w.failing[method.Name]; f.left > 0 {
		f.left--
		w.failing[method.Name] = f
		return nil, f.fault
	}
	if method.Name == "QueryChangedDiskAreas" && method.This == w.vm {
		// Another object than the machine's own, or the session would find that.
		method.This = types.ManagedObjectReference{Type: "Tracked", Value: w.vm.Value}
		return &tracked{ManagedObjectReference: method.This, world: w}, nil
	}
	return nil, nil
}

// A machine, as far as its changed blocks go.
type tracked struct {
	types.ManagedObjectReference
	world *world
}

func (t *tracked) QueryChangedDiskAreas(req *types.QueryChangedDiskAreas) soap.HasFault {
	body := new(methods.QueryChangedDiskAreasBody)
	info, fault := t.world.changes(req)
	if fault != nil {
		body.Fault_ = simulator.Fault("Error caused by file", fault)
	} else {
		body.Res = &types.QueryChangedDiskAreasResponse{Returnval: *info}
	}
	return body
}

func (w *world) changes(req *types.QueryChangedDiskAreas) (*types.DiskChangeInfo, types.BaseMethodFault) {
	if req.Snapshot == nil || req.DeviceKey != w.key || !strings.HasPrefix(req.ChangeId, life) {
		return nil, &types.InvalidArgument{InvalidProperty: "changeId"}
	}
	n, err := strconv.Atoi(strings.TrimPrefix(req.ChangeId, life))
	name, known := w.files[*req.Snapshot]
	if err != nil || n < 1 || n > len(w.states) || !known {
		return nil, &types.FileFault{File: "[LocalDS_0]"}
	}
	before, err1 := os.ReadFile(w.states[n-1])
	now, err2 := os.ReadFile(name)
	if err1 != nil || err2 != nil || req.StartOffset >= int64(len(now)) {
		return nil, &types.InvalidArgument{InvalidProperty: "startOffset"}
	}
	info := &types.DiskChangeInfo{StartOffset: req.StartOffset}
	at := int(req.StartOffset)
	for ; at < len(now); at += piece {
		end := min(at+piece, len(now))
		if bytes.Equal(before[min(at, len(before)):min(end, len(before))], now[at:end]) {
			continue
		}
		areas := info.ChangedArea
		if k := len(areas); k > 0 && areas[k-1].Start+areas[k-1].Length == int64(at) {
			areas[k-1].Length += int64(end - at)
			continue
		}
		if len(areas) == most {
			break
		}
		info.ChangedArea = append(areas, types.DiskChangeExtent{Start: int64(at), Length: int64(end - at)})
	}
	info.Length = int64(min(at, len(now))) - req.StartOffset
	return info, nil
}

func (w *world) tell(out http.ResponseWriter, _ *http.Request) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	_ = json.NewEncoder(out).Encode(w.calls)
}

// Ends the sessions of everybody, as a restart or half an hour of silence would.
func (w *world) expire(out http.ResponseWriter, _ *http.Request) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for id := range w.cookies {
		w.cookies[id] = false
	}
	_, _ = fmt.Fprintln(out, "ended")
}

// The session of a request.
func (w *world) cookie(ctx *simulator.Context) string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	id := simulator.HTTPCookie(ctx)
	if alive, seen := w.cookies[id]; seen && !alive {
		return ""
	}
	w.cookies[id] = true
	return id
}

// Has the next calls of a method fail: ?method=Login&fault=NoPermission&times=1.
func (w *world) fail(out http.ResponseWriter, in *http.Request) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	query := in.URL.Query()
	times, err := strconv.Atoi(query.Get("times"))
	faults := map[string]types.BaseMethodFault{
		"NoPermission":   &types.NoPermission{PrivilegeId: "VirtualMachine.Provisioning.DiskRandomRead"},
		"FileFault":      &types.FileFault{File: "[LocalDS_0] web.vmdk"},
		"SystemError":    &types.SystemError{},
		"TaskInProgress": &types.TaskInProgress{},
	}
	fault, known := faults[query.Get("fault")]
	if err != nil || !known {
		http.Error(out, "no such fault", http.StatusBadRequest)
		return
	}
	w.failing[query.Get("method")] = failure{fault, times}
	_, _ = fmt.Fprintln(out, "ready")
}

// Makes a snapshot for each file, and a delta of the machine's disk after it.
func (w *world) furnish(registry *simulator.Registry, client *vim25.Client, folder string) ([]string, error) {
	ctx := context.Background()
	machine := registry.Get(w.vm).(*simulator.VirtualMachine)
	disk, backing := diskOf(machine.Config.Hardware.Device)
	if disk == nil {
		return nil, fmt.Errorf("the machine has no disk")
	}
	w.key = disk.Key
	base := strings.TrimSuffix(backing.FileName, ".vmdk")
	var names []string
	for n := 1; ; n++ {
		file := filepath.Join(folder, fmt.Sprintf("%d.raw", n))
		stat, err := os.Stat(file)
		if err != nil {
			return names, nil
		}
		disk.CapacityInBytes = stat.Size()
		disk.CapacityInKB = stat.Size() >> 10
		task, err := object.NewVirtualMachine(client, w.vm).CreateSnapshot(ctx, fmt.Sprintf("state %d", n), "", false, false)
		if err != nil {
			return nil, err
		}
		info, err := task.WaitForResult(ctx)
		if err != nil {
			return nil, err
		}
		reference := info.Result.(types.ManagedObjectReference)
		w.files[reference] = file
		w.states = append(w.states, file)
		names = append(names, reference.Value)

		// The snapshot keeps what there is, and what is written from now on goes to a file on top of it.
		kept := *backing
		kept.ChangeId = fmt.Sprintf("%s%d", life, n)
		snapshot := registry.Get(reference).(*simulator.VirtualMachineSnapshot)
		snapshot.Config.Hardware.Device = with(machine.Config.Hardware.Device, disk, &kept)
		above := *backing
		above.FileName = fmt.Sprintf("%s-%06d.vmdk", base, n)
		above.Parent = backing
		backing = &above
		disk.Backing = backing
	}
}

func diskOf(devices []types.BaseVirtualDevice) (*types.VirtualDisk, *types.VirtualDiskFlatVer2BackingInfo) {
	for _, device := range devices {
		if disk, is := device.(*types.VirtualDisk); is {
			if backing, is := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); is {
				return disk, backing
			}
		}
	}
	return nil, nil
}

// The same devices, with another backing of one disk.
func with(devices []types.BaseVirtualDevice, disk *types.VirtualDisk, backing types.BaseVirtualDeviceBackingInfo) []types.BaseVirtualDevice {
	devices = append([]types.BaseVirtualDevice(nil), devices...)
	for i, device := range devices {
		if device == disk {
			copied := *disk
			copied.Backing = backing
			devices[i] = &copied
		}
	}
	return devices
}

func serve(folder string) error {
	model := simulator.VPX()
	model.Cluster = 0
	model.Machine = 2
	if err := model.Create(); err != nil {
		return err
	}
	defer model.Remove()
	registry := model.Service.Context.Map
	machine := registry.Any("VirtualMachine").(*simulator.VirtualMachine)
	w := &world{
		calls:   map[string]int{},
		failing: map[string]failure{},
		cookies: map[string]bool{},
		vm:      machine.Self,
		files:   map[types.ManagedObjectReference]string{},
	}
	client, err := vim25.NewClient(context.Background(), model.Service)
	if err != nil {
		return err
	}
	_, first := diskOf(machine.Config.Hardware.Device)
	snapshots, err := w.furnish(registry, client, folder)
	if err != nil {
		return err
	}
	registry.Handler = w.called
	registry.Cookie = w.cookie
	model.Service.Listen = &url.URL{
		Host: "127.0.0.1:0",
		User: url.UserPassword(os.Getenv("USER"), os.Getenv("PASSWORD")),
	}
	model.Service.TLS = new(tls.Config)
	model.Service.HandleFunc("/test/calls", w.tell)
	model.Service.HandleFunc("/test/expire", w.expire)
	model.Service.HandleFunc("/test/fail", w.fail)
	server := model.Service.NewServer()
	defer server.Close()

	certificate := server.Certificate().Raw
	one, two := sha1.Sum(certificate), sha256.Sum256(certificate)
	err = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"address":   server.URL.Host,
		"sha1":      hex.EncodeToString(one[:]),
		"sha256":    hex.EncodeToString(two[:]),
		"vm":        machine.Self.Value,
		"uuid":      machine.Config.Uuid,
		"instance":  machine.Config.InstanceUuid,
		"file":      first.FileName,
		"key":       w.key,
		"snapshots": snapshots,
		"life":      life,
	})
	if err != nil {
		return err
	}
	// Until whoever started it is gone.
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil
}

func main() {
	log.SetFlags(0)
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("vsphere-simulator", version)
		return
	}
	if len(os.Args) != 2 {
		log.Fatal("usage: vsphere-simulator FOLDER (with 1.raw, 2.raw..; USER and PASSWORD in the environment)")
	}
	if err := serve(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}
