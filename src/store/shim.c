/* A disk that refuses, for tests. Preloaded; what it refuses is the word in the file $SHIM_CONTROL:
 * "eio", "rofs", "full": writes fail so. "fsync": syncs fail. Only files below $SHIM_PATH are concerned. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int below(const char *path)
{
    const char *root = getenv("SHIM_PATH");
    return root && strncmp(path, root, strlen(root)) == 0;
}

static int concerned(int fd)
{
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return below(path);
}

/* The error that writing (or syncing) has to fail with, or 0. */
static int refusal(int syncing)
{
    char word[16] = {0};
    const char *control = getenv("SHIM_CONTROL");
    int fd = control ? (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY) : -1;
    if (fd < 0)
        return 0;
    syscall(SYS_read, fd, word, sizeof word - 1);
    syscall(SYS_close, fd);
    if (!strcmp(word, "fsync"))
        return syncing ? EIO : 0;
    if (!strcmp(word, "eio"))
        return EIO;
    if (!strcmp(word, "rofs"))
        return EROFS;
    if (!strcmp(word, "full"))
        return syncing ? 0 : ENOSPC;
    return 0;
}

#define REFUSE(fd, syncing)                        \
    do {                                           \
        int error = refusal(syncing);              \
        if (error && concerned(fd)) {              \
            errno = error;                         \
            return -1;                             \
        }                                          \
    } while (0)

#define NEXT(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

ssize_t write(int fd, const void *data, size_t size)
{
    REFUSE(fd, 0);
    return NEXT(ssize_t, "write", int, const void *, size_t)(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    REFUSE(fd, 0);
    return NEXT(ssize_t, "pwrite", int, const void *, size_t, off_t)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    REFUSE(fd, 0);
    return NEXT(ssize_t, "pwrite64", int, const void *, size_t, off64_t)(fd, data, size, at);
}

int fsync(int fd)
{
    REFUSE(fd, 1);
    return NEXT(int, "fsync", int)(fd);
}

int fdatasync(int fd)
{
    REFUSE(fd, 1);
    return NEXT(int, "fdatasync", int)(fd);
}

static int open_with(const char *name, const char *path, int flags, mode_t mode)
{
    if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && refusal(0) == EROFS && below(path)) {
        errno = EROFS;
        return -1;
    }
    return NEXT(int, name, const char *, int, mode_t)(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = va_arg(arguments, mode_t);
    va_end(arguments);
    return open_with("open", path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = va_arg(arguments, mode_t);
    va_end(arguments);
    return open_with("open64", path, flags, mode);
}
