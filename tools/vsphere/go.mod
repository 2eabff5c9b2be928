// The simulator of vSphere that the tests of VMware disks ask.
module longshore.test/tools/vsphere

go 1.26

require github.com/vmware/govmomi v0.52.0

require github.com/google/uuid v1.6.0 // indirect
