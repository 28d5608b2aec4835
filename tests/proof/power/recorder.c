/* Records what a process does to the files below $POWER_ROOT, in the order in which it is done, for tests. Preloaded; the
 * record goes to the file $POWER_LOG.
 *
 * One lock is held from before a call until its entry is written, so the order of entries is the order of effects. Syncs
 * are the exception: they have an entry when they begin and one when they have returned, and others go on in between, for
 * $POWER_DELAY microseconds at least: a sync covers what had returned before it began.
 *
 * Entry: kind u8, flags u8, length of the name u16, descriptor i32, two numbers i64, length of the data u32, name, data;
 * in the byte order of the machine. What each kind means is in log.rs. Writes through mmap are not seen: RocksDB does not
 * use them unless it is asked to. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN = 1, CLOSE, DUP, WRITE, TRUNCATE, ALLOCATE, SYNC_BEGIN, SYNC_END, RENAME, LINK, UNLINK, MKDIR, MARK, RANGE };

#define DESCRIPTORS 65536
#define NEXT(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char tracked[DESCRIPTORS];
static const char *root;
static size_t root_length;
static int record = -1;
static unsigned delay;
static int64_t tokens;

__attribute__((constructor)) static void begin(void)
{
    const char *log = getenv("POWER_LOG"), *wait = getenv("POWER_DELAY");
    root = getenv("POWER_ROOT");
    if (!log || !root)
        return;
    root_length = strlen(root);
    delay = wait ? (unsigned)atoi(wait) : 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    record = fcntl(fd, F_DUPFD_CLOEXEC, 900);
    syscall(SYS_close, fd);
}

static int below(const char *path)
{
    return record >= 0 && path && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int ours(int fd)
{
    return fd >= 0 && fd < DESCRIPTORS && tracked[fd];
}

/* The absolute path of what is named relative to a directory. */
static const char *resolve(int directory, const char *path, char *space)
{
    if (!path || *path == '/' || record < 0)
        return path;
    char link[64];
    if (directory == AT_FDCWD)
        strcpy(link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, space, 4096);
    if (length < 0)
        return path;
    snprintf(space + length, 8192 - (size_t)length, "/%s", path);
    return space;
}

static void put(const struct iovec *parts, int count, size_t total)
{
    ssize_t done = syscall(SYS_writev, record, parts, count);
    if (done != (ssize_t)total)
        abort();
}

static void entry(enum kind kind, int flags, int fd, int64_t a, int64_t b, const char *name, const void *data, size_t size)
{
    unsigned char head[28];
    uint16_t name_length = name ? (uint16_t)strlen(name) : 0;
    uint32_t length = (uint32_t)size;
    head[0] = (unsigned char)kind;
    head[1] = (unsigned char)flags;
    memcpy(head + 2, &name_length, 2);
    memcpy(head + 4, &fd, 4);
    memcpy(head + 8, &a, 8);
    memcpy(head + 16, &b, 8);
    memcpy(head + 24, &length, 4);
    struct iovec parts[] = {{head, sizeof head}, {(void *)name, name_length}, {(void *)data, size}};
    put(parts, 3, sizeof head + name_length + size);
}

static void lock(void)
{
    pthread_mutex_lock(&mutex);
}

static void unlock(void)
{
    int error = errno;
    pthread_mutex_unlock(&mutex);
    errno = error;
}

/* For the program: a note at its place in the order. */
void power_mark(const char *text)
{
    if (record < 0)
        return;
    lock();
    entry(MARK, 0, -1, 0, 0, text, NULL, 0);
    unlock();
}

static int opened(int fd, const char *path, int flags)
{
    if (fd >= 0 && fd < DESCRIPTORS) {
        tracked[fd] = 1;
        /* Flags: 1 created if need be, 2 truncated. */
        entry(OPEN, (flags & O_CREAT ? 1 : 0) | (flags & O_TRUNC ? 2 : 0), fd, 0, 0, path, NULL, 0);
    }
    return fd;
}

static int open_at(int directory, const char *path, int flags, mode_t mode)
{
    char space[8192];
    const char *full = resolve(directory, path, space);
    if (!below(full))
        return (int)syscall(SYS_openat, directory, path, flags, mode);
    lock();
    int fd = opened((int)syscall(SYS_openat, directory, path, flags, mode), full, flags);
    unlock();
    return fd;
}

#define OPENER(name, ...)                        \
    {                                            \
        va_list arguments;                       \
        va_start(arguments, flags);              \
        mode_t mode = va_arg(arguments, mode_t); \
        va_end(arguments);                       \
        return open_at(__VA_ARGS__);             \
    }

int open(const char *path, int flags, ...) OPENER(open, AT_FDCWD, path, flags, mode)
int open64(const char *path, int flags, ...) OPENER(open64, AT_FDCWD, path, flags, mode)
int openat(int at, const char *path, int flags, ...) OPENER(openat, at, path, flags, mode)
int openat64(int at, const char *path, int flags, ...) OPENER(openat64, at, path, flags, mode)
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd)
{
    if (!ours(fd))
        return (int)syscall(SYS_close, fd);
    lock();
    tracked[fd] = 0;
    entry(CLOSE, 0, fd, 0, 0, NULL, NULL, 0);
    int result = (int)syscall(SYS_close, fd);
    unlock();
    return result;
}

static int copied(int fd, int copy)
{
    if (copy >= 0 && copy < DESCRIPTORS) {
        tracked[copy] = 1;
        entry(DUP, 0, fd, copy, 0, NULL, NULL, 0);
    }
    return copy;
}

int dup(int fd)
{
    if (!ours(fd))
        return (int)syscall(SYS_dup, fd);
    lock();
    int copy = copied(fd, (int)syscall(SYS_dup, fd));
    unlock();
    return copy;
}

static int control(int fd, int command, long argument)
{
    if (!ours(fd) || (command != F_DUPFD && command != F_DUPFD_CLOEXEC))
        return (int)syscall(SYS_fcntl, fd, command, argument);
    lock();
    int copy = copied(fd, (int)syscall(SYS_fcntl, fd, command, argument));
    unlock();
    return copy;
}

int fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    long argument = va_arg(arguments, long);
    va_end(arguments);
    return control(fd, command, argument);
}

int fcntl64(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    long argument = va_arg(arguments, long);
    va_end(arguments);
    return control(fd, command, argument);
}

ssize_t write(int fd, const void *data, size_t size)
{
    if (!ours(fd))
        return syscall(SYS_write, fd, data, size);
    lock();
    ssize_t done = syscall(SYS_write, fd, data, size);
    if (done > 0)
        entry(WRITE, 0, fd, syscall(SYS_lseek, fd, 0, SEEK_CUR) - done, 0, NULL, data, (size_t)done);
    unlock();
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    if (!ours(fd))
        return syscall(SYS_pwrite64, fd, data, size, at);
    lock();
    ssize_t done = syscall(SYS_pwrite64, fd, data, size, at);
    if (done > 0)
        entry(WRITE, 0, fd, at, 0, NULL, data, (size_t)done);
    unlock();
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return pwrite(fd, data, size, at); }

/* Entries of the parts that were written. */
static void scattered(int fd, const struct iovec *parts, int count, ssize_t done, off_t at)
{
    for (int i = 0; i < count && done > 0; i++) {
        size_t size = parts[i].iov_len < (size_t)done ? parts[i].iov_len : (size_t)done;
        entry(WRITE, 0, fd, at, 0, NULL, parts[i].iov_base, size);
        at += (off_t)size;
        done -= (ssize_t)size;
    }
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (!ours(fd))
        return syscall(SYS_writev, fd, parts, count);
    lock();
    ssize_t done = syscall(SYS_writev, fd, parts, count);
    if (done > 0)
        scattered(fd, parts, count, done, syscall(SYS_lseek, fd, 0, SEEK_CUR) - done);
    unlock();
    return done;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    /* Its system call takes the offset in halves. */
    if (!ours(fd))
        return NEXT(ssize_t, "pwritev", int, const struct iovec *, int, off_t)(fd, parts, count, at);
    lock();
    ssize_t done = NEXT(ssize_t, "pwritev", int, const struct iovec *, int, off_t)(fd, parts, count, at);
    scattered(fd, parts, count, done, at);
    unlock();
    return done;
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return pwritev(fd, parts, count, at); }

/* What would pass unseen: a program that uses one of these needs a better recorder. */
#define UNSEEN(fd) \
    if (ours(fd))  \
    abort()

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t size, unsigned flags)
{
    UNSEEN(to);
    return syscall(SYS_copy_file_range, from, from_at, to, to_at, size, flags);
}

ssize_t sendfile64(int to, int from, off64_t *at, size_t size)
{
    UNSEEN(to);
    return syscall(SYS_sendfile, to, from, at, size);
}

static int resized(int fd, off_t size)
{
    lock();
    int result = (int)syscall(SYS_ftruncate, fd, size);
    if (!result)
        entry(TRUNCATE, 0, fd, size, 0, NULL, NULL, 0);
    unlock();
    return result;
}

int ftruncate(int fd, off_t size)
{
    return ours(fd) ? resized(fd, size) : (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int truncate(const char *path, off_t size)
{
    if (!below(path))
        return (int)syscall(SYS_truncate, path, size);
    lock();
    int result = (int)syscall(SYS_truncate, path, size);
    if (!result)
        entry(TRUNCATE, 0, -1, size, 0, path, NULL, 0);
    unlock();
    return result;
}

int truncate64(const char *path, off64_t size) { return truncate(path, size); }

int fallocate(int fd, int mode, off_t at, off_t size)
{
    if (!ours(fd))
        return (int)syscall(SYS_fallocate, fd, mode, at, size);
    /* Holes and the like are not known to the reader. */
    if (mode & ~FALLOC_FL_KEEP_SIZE && mode != (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE))
        abort();
    lock();
    int result = (int)syscall(SYS_fallocate, fd, mode, at, size);
    if (!result)
        entry(ALLOCATE, mode & FALLOC_FL_KEEP_SIZE, fd, at, size, NULL, NULL, 0);
    unlock();
    return result;
}

int fallocate64(int fd, int mode, off64_t at, off64_t size) { return fallocate(fd, mode, at, size); }

int posix_fallocate(int fd, off_t at, off_t size)
{
    return fallocate(fd, 0, at, size) ? errno : 0;
}

int posix_fallocate64(int fd, off64_t at, off64_t size) { return posix_fallocate(fd, at, size); }

static int synced(int fd, long call)
{
    if (!ours(fd))
        return (int)syscall(call, fd);
    lock();
    int64_t token = ++tokens;
    entry(SYNC_BEGIN, call == SYS_syncfs, fd, token, 0, NULL, NULL, 0);
    unlock();
    if (delay)
        usleep(delay);
    int result = (int)syscall(call, fd);
    lock();
    if (!result)
        entry(SYNC_END, 0, fd, token, 0, NULL, NULL, 0);
    unlock();
    return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }
int syncfs(int fd) { return synced(fd, SYS_syncfs); }

int sync_file_range(int fd, off64_t at, off64_t size, unsigned flags)
{
    if (ours(fd)) {
        lock();
        entry(RANGE, 0, fd, at, size, NULL, NULL, 0);
        unlock();
    }
    return (int)syscall(SYS_sync_file_range, fd, at, size, flags);
}

static int renamed(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    char spaces[2][8192];
    const char *old = resolve(from_at, from, spaces[0]), *new = resolve(to_at, to, spaces[1]);
    if (!below(old) && !below(new))
        return (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    lock();
    int result = (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (!result)
        entry(RENAME, 0, -1, 0, 0, old, new, strlen(new));
    unlock();
    return result;
}

int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return renamed(from_at, from, to_at, to, 0); }
int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    return renamed(from_at, from, to_at, to, flags);
}

static int linked(int from_at, const char *from, int to_at, const char *to, int flags)
{
    char spaces[2][8192];
    const char *old = resolve(from_at, from, spaces[0]), *new = resolve(to_at, to, spaces[1]);
    if (!below(new))
        return (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
    lock();
    int result = (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
    if (!result)
        entry(LINK, 0, -1, 0, 0, old, new, strlen(new));
    unlock();
    return result;
}

int link(const char *from, const char *to) { return linked(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
    return linked(from_at, from, to_at, to, flags);
}

static int removed(int at, const char *path, int flags)
{
    char space[8192];
    const char *full = resolve(at, path, space);
    if (!below(full))
        return (int)syscall(SYS_unlinkat, at, path, flags);
    lock();
    int result = (int)syscall(SYS_unlinkat, at, path, flags);
    if (!result)
        entry(UNLINK, 0, -1, 0, 0, full, NULL, 0);
    unlock();
    return result;
}

int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return removed(at, path, flags); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }

int remove(const char *path)
{
    int result = removed(AT_FDCWD, path, 0);
    return result && (errno == EISDIR || errno == EPERM) ? rmdir(path) : result;
}

static int made(int at, const char *path, mode_t mode)
{
    char space[8192];
    const char *full = resolve(at, path, space);
    if (!below(full))
        return (int)syscall(SYS_mkdirat, at, path, mode);
    lock();
    int result = (int)syscall(SYS_mkdirat, at, path, mode);
    if (!result)
        entry(MKDIR, 0, -1, 0, 0, full, NULL, 0);
    unlock();
    return result;
}

int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return made(at, path, mode); }
