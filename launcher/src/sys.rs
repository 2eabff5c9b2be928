//! The launcher's only unsafe code: three kernel interfaces for which no safe wrapper exists.
//!
//! Each function here is safe to call; what makes it so is stated where it is used. Anything with a
//! safe wrapper in rustix, kvm-ioctls or tokio belongs elsewhere.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{VcpuFd, VmFd};
use rustix::fd::{BorrowedFd, RawFd};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Makes the child die with the *thread* that spawns it, and lets it inherit `keep`.
///
/// The kernel sends the signal when the spawning thread ends, so that thread must outlive the child
/// by design: the supervisor spawns from the thread that then waits.
pub(crate) fn die_with_parent(command: &mut Command, keep: Option<RawFd>) {
    let parent = getpid();
    let before_exec = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above took effect; then nobody would send it.
        if getppid() != Some(parent) {
            return Err(io::Error::from(rustix::io::Errno::SRCH));
        }
        if let Some(fd) = keep {
            keep_across_exec(fd)?;
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "code between fork and exec has no safe wrapper")]
    // SAFETY: the closure only makes system calls (prctl, getppid, fcntl): it neither allocates nor
    // takes locks, so it is sound between fork and exec of a program with threads.
    unsafe {
        command.pre_exec(before_exec);
    }
}

fn keep_across_exec(fd: RawFd) -> io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "a raw descriptor is all that can cross the fork"
    )]
    // SAFETY: the caller of `die_with_parent` holds the descriptor open until the spawn returns, and
    // the child has its own copy of the table.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    Ok(())
}

/// A virtual machine with one vCPU and one private page, holding a few bytes of code.
///
/// Field order is the order of release: the vCPU and the VM go before the page they run on.
#[derive(Debug)]
pub(crate) struct OnePageVm {
    pub(crate) vcpu: VcpuFd,
    _vm: VmFd,
    _page: Page,
}

/// Where the page sits in the guest's physical memory.
pub(crate) const PAGE_ADDRESS: u64 = 0x1000;
const PAGE_SIZE: usize = 0x1000;

impl OnePageVm {
    /// Maps `code` (cut to a page) at [`PAGE_ADDRESS`]; the vCPU is left in its reset state.
    pub(crate) fn new(vm: VmFd, code: &[u8]) -> io::Result<Self> {
        let mut page = Page::new()?;
        page.fill(code);
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: PAGE_ADDRESS,
            memory_size: PAGE_SIZE as u64,
            userspace_addr: page.address.expose_provenance() as u64,
        };
        #[expect(
            unsafe_code,
            reason = "KVM takes the address of memory it will write to"
        )]
        // SAFETY: the region is a live private mapping of exactly this size which nothing else
        // refers to, and it is unmapped only after the VM is closed (field order).
        unsafe { vm.set_user_memory_region(region) }?;
        let vcpu = vm.create_vcpu(0)?;
        Ok(Self {
            vcpu,
            _vm: vm,
            _page: page,
        })
    }
}

#[derive(Debug)]
struct Page {
    address: *mut u8,
}

impl Page {
    fn new() -> io::Result<Self> {
        #[expect(unsafe_code, reason = "mapping memory has no safe wrapper")]
        // SAFETY: a new private mapping at an address the kernel chooses replaces nothing.
        let address = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                PAGE_SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        Ok(Self {
            address: address.cast(),
        })
    }

    fn fill(&mut self, code: &[u8]) {
        let length = code.len().min(PAGE_SIZE);
        #[expect(
            unsafe_code,
            reason = "the page is shared with the kernel, so it is no slice"
        )]
        // SAFETY: the mapping is PAGE_SIZE bytes long, writable, and does not overlap `code`.
        unsafe {
            self.address.copy_from_nonoverlapping(code.as_ptr(), length);
        }
    }
}

#[expect(unsafe_code, reason = "the probe's vCPU runs on a thread of its own")]
// SAFETY: the pointer is the mapping's only owner; a mapping belongs to the process, not to a thread.
unsafe impl Send for Page {}

impl Drop for Page {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "unmapping memory has no safe wrapper")]
        // SAFETY: the mapping was made by `new`, is owned by this value alone, and KVM's use of it
        // ended when the VM was closed.
        let unmapped = unsafe { munmap(self.address.cast(), PAGE_SIZE) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own can be unmapped");
    }
}
