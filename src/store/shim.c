/* A disk that fails, for tests. Preloaded; what it does is said by the words in the file $SHIM_CONTROL, divided by spaces:
 *
 *   eio, rofs     writes and syncs fail so; with rofs also opening for writing
 *   full          writes, allocations and new files fail with ENOSPC
 *   fsync         syncs fail with EIO
 *   reads         reads fail with EIO
 *   slow=MS       each write and sync takes that long (100)
 *   short         writes take half of what they are given
 *   shortread     reads give half of what they are asked for
 *   eintr         reads and writes are interrupted before they begin, never twice in a row in one thread
 *   only=PART     concerns files with this in their path only
 *
 * WORD@PERCENT does so in that many of a hundred calls, by the seed $SHIM_SEED. Only files below $SHIM_PATH are concerned. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum call { WRITING, SYNCING, READING, ALLOCATING, CREATING, OPENING };

/* What a call has to do. */
struct fault {
    int error;
    int halves;
};

static int below(const char *path)
{
    const char *root = getenv("SHIM_PATH");
    return root && strncmp(path, root, strlen(root)) == 0;
}

static int path_of(int fd, char *path, size_t size)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, size - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return below(path);
}

/* SplitMix64 of the number of this call. */
static unsigned percent(void)
{
    static _Atomic uint64_t calls;
    const char *seed = getenv("SHIM_SEED");
    uint64_t z = (seed ? strtoull(seed, NULL, 10) : 0) * 0x9e3779b97f4a7c15u;
    z += 0x9e3779b97f4a7c15u * (1 + atomic_fetch_add(&calls, 1));
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (unsigned)((z ^ (z >> 31)) % 100);
}

static void take_a_while(int ms)
{
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000L};
    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}

/* The words that are in force; 0 when all is well. */
static int control(char *words, size_t size)
{
    const char *path = getenv("SHIM_CONTROL");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    ssize_t length = syscall(SYS_read, fd, words, size - 1);
    syscall(SYS_close, fd);
    words[length > 0 ? length : 0] = 0;
    return length > 0;
}

/* What is wrong with a call, by the file that it concerns: `path`, or that of `fd`. */
static struct fault look(enum call call, int fd, const char *path)
{
    static _Thread_local int interrupted;
    struct fault fault = {0, 0};
    char words[256], own[4096];
    if (!control(words, sizeof words))
        return fault;
    if (path ? !below(path) : !path_of(fd, own, sizeof own))
        return fault;
    path = path ? path : own;
    int writes = call == WRITING || call == ALLOCATING, pause = 0;
    char *rest = NULL;
    for (char *word = strtok_r(words, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
        if (!strncmp(word, "only=", 5)) {
            if (!strstr(path, word + 5))
                return (struct fault){0, 0};
            continue;
        }
        char *chance = strchr(word, '@'), *value = strchr(word, '=');
        if (chance && percent() >= (unsigned)atoi(chance + 1))
            continue;
        if (chance)
            *chance = 0;
        if (value)
            *value = 0;
        if (!strcmp(word, "slow") && (call == WRITING || call == SYNCING))
            pause = value ? atoi(value + 1) : 100;
        else if (!strcmp(word, "short") && call == WRITING)
            fault.halves = 1;
        else if (!strcmp(word, "shortread") && call == READING)
            fault.halves = 1;
        else if (!strcmp(word, "eintr") && (call == WRITING || call == READING) && !interrupted)
            fault.error = EINTR;
        else if (!strcmp(word, "fsync") && call == SYNCING)
            fault.error = EIO;
        else if (!strcmp(word, "eio") && (writes || call == SYNCING))
            fault.error = EIO;
        else if (!strcmp(word, "reads") && call == READING)
            fault.error = EIO;
        else if (!strcmp(word, "rofs") && call != READING)
            fault.error = EROFS;
        else if (!strcmp(word, "full") && (writes || call == CREATING))
            fault.error = ENOSPC;
    }
    interrupted = fault.error == EINTR;
    if (pause)
        take_a_while(pause);
    return fault;
}

#define REFUSE(fault)            \
    do {                         \
        int error = fault.error; \
        if (error) {             \
            errno = error;       \
            return -1;           \
        }                        \
    } while (0)

#define NEXT(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

static size_t some(struct fault fault, size_t size)
{
    return fault.halves && size > 1 ? size / 2 : size;
}

ssize_t write(int fd, const void *data, size_t size)
{
    struct fault fault = look(WRITING, fd, NULL);
    REFUSE(fault);
    return NEXT(ssize_t, "write", int, const void *, size_t)(fd, data, some(fault, size));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    struct fault fault = look(WRITING, fd, NULL);
    REFUSE(fault);
    return NEXT(ssize_t, "pwrite", int, const void *, size_t, off_t)(fd, data, some(fault, size), at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    struct fault fault = look(WRITING, fd, NULL);
    REFUSE(fault);
    return NEXT(ssize_t, "pwrite64", int, const void *, size_t, off64_t)(fd, data, some(fault, size), at);
}

ssize_t read(int fd, void *data, size_t size)
{
    struct fault fault = look(READING, fd, NULL);
    REFUSE(fault);
    return NEXT(ssize_t, "read", int, void *, size_t)(fd, data, some(fault, size));
}

ssize_t pread(int fd, void *data, size_t size, off_t at)
{
    struct fault fault = look(READING, fd, NULL);
    REFUSE(fault);
    return NEXT(ssize_t, "pread", int, void *, size_t, off_t)(fd, data, some(fault, size), at);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t at)
{
    struct fault fault = look(READING, fd, NULL);
    REFUSE(fault);
    return NEXT(ssize_t, "pread64", int, void *, size_t, off64_t)(fd, data, some(fault, size), at);
}

/* Goes on by itself over what read() gives: it fails, or it does not. */
size_t fread_unlocked(void *data, size_t size, size_t count, FILE *file)
{
    struct fault fault = look(READING, fileno(file), NULL);
    if (fault.error && fault.error != EINTR) {
        errno = fault.error;
        return 0;
    }
    return NEXT(size_t, "fread_unlocked", void *, size_t, size_t, FILE *)(data, size, count, file);
}

int fsync(int fd)
{
    REFUSE(look(SYNCING, fd, NULL));
    return NEXT(int, "fsync", int)(fd);
}

int fdatasync(int fd)
{
    REFUSE(look(SYNCING, fd, NULL));
    return NEXT(int, "fdatasync", int)(fd);
}

int fallocate(int fd, int mode, off_t at, off_t size)
{
    REFUSE(look(ALLOCATING, fd, NULL));
    return NEXT(int, "fallocate", int, int, off_t, off_t)(fd, mode, at, size);
}

int fallocate64(int fd, int mode, off64_t at, off64_t size)
{
    REFUSE(look(ALLOCATING, fd, NULL));
    return NEXT(int, "fallocate64", int, int, off64_t, off64_t)(fd, mode, at, size);
}

int posix_fallocate(int fd, off_t at, off_t size)
{
    int error = look(ALLOCATING, fd, NULL).error;
    return error ? error : NEXT(int, "posix_fallocate", int, off_t, off_t)(fd, at, size);
}

static int open_with(const char *name, const char *path, int flags, mode_t mode)
{
    if (flags & (O_WRONLY | O_RDWR | O_CREAT)) {
        int makes = (flags & O_CREAT) && access(path, F_OK);
        REFUSE(look(makes ? CREATING : OPENING, -1, path));
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
