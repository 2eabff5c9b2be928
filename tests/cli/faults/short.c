/* Preloaded: every positional read and write does at most a few hundred bytes, a different number each
 * time. How many calls were cut is in the file short.count in the working directory at the end. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned long cut;

static size_t less(size_t count)
{
    static unsigned step;
    size_t most = 200 + __atomic_add_fetch(&step, 1, __ATOMIC_RELAXED) % 700;

    if (count <= most)
        return count;
    __atomic_add_fetch(&cut, 1, __ATOMIC_RELAXED);
    return most;
}

ssize_t pread64(int fd, void *buf, size_t count, off_t offset)
{
    return syscall(SYS_pread64, fd, buf, less(count), offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t count, off_t offset)
{
    return syscall(SYS_pwrite64, fd, buf, less(count), offset);
}

__attribute__((destructor)) static void tell(void)
{
    FILE *file = fopen("short.count", "w");

    if (file) {
        fprintf(file, "%lu\n", cut);
        fclose(file);
    }
}
