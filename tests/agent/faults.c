/* A disk that fails: loaded before the C library, it lets the calls that touch one folder fail from a given number on.
 *
 * FAULTS_FOLDER is the folder; FAULTS_CONTROL is a file that is mapped by the test and by every process under it:
 * see `struct control`. Calls through descriptors count when the descriptor was opened below the folder.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READS = 1, CHANGES = 2, GROWS = 4 };

struct control {
    atomic_int first;  /* number of the first call that fails; 0: none */
    atomic_int last;   /* number of the last one that fails */
    atomic_int error;  /* the errno */
    atomic_int kinds;  /* which calls count and fail */
    atomic_int seen;   /* how many have been counted */
};

static struct control *control;
static char folder[4096];
static size_t length;
static atomic_uchar inside[65536];

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("FAULTS_CONTROL"), *where = getenv("FAULTS_FOLDER");
    if (file == NULL || where == NULL) return;
    int descriptor = open(file, O_RDWR | O_CLOEXEC);
    if (descriptor < 0) abort();
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapped == MAP_FAILED) abort();
    strncpy(folder, where, sizeof folder - 1);
    length = strlen(folder);
    control = mapped;
}

static int fails(int kind) {
    if (control == NULL || !(control->kinds & kind) || control->first == 0) return 0;
    int number = atomic_fetch_add(&control->seen, 1) + 1;
    if (number < control->first || number > control->last) return 0;
    errno = control->error;
    return 1;
}

static int below(const char *path) {
    return length && path != NULL && strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int held(int descriptor) { return descriptor >= 0 && descriptor < 65536 && inside[descriptor]; }

static int at(int where, const char *path) { return path != NULL && path[0] == '/' ? below(path) : held(where); }

static int track(int descriptor, int is_inside) {
    if (descriptor >= 0 && descriptor < 65536) inside[descriptor] = is_inside;
    return descriptor;
}

#define REAL(name) ({ static __typeof__(&name) real; if (real == NULL) real = dlsym(RTLD_NEXT, #name); real; })

/* name, type of the result, parameters, arguments, whether it concerns the folder, kind of the call */
#define WRAP(name, type, parameters, arguments, concerned, kind) \
    type name parameters { \
        if ((concerned) && fails(kind)) return -1; \
        return REAL(name) arguments; \
    }

/* A full disk opens what is there already, and a read-only one opens it for reading. */
static int opening(int where, const char *path, int flags) {
    int error = errno, makes = (flags & O_CREAT) && faccessat(where, path, F_OK, 0) != 0;
    errno = error;
    if (makes) return CHANGES | GROWS;
    return flags & (O_WRONLY | O_RDWR) ? CHANGES : READS;
}

#define OPEN(name, first, dir, where, passed) \
    int name first { \
        mode_t mode = 0; \
        if (flags & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        int concerned = where; \
        if (concerned && fails(opening(dir, path, flags))) return -1; \
        return track(REAL(name) passed, concerned); \
    }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD, below(path), (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, below(path), (path, flags, mode))
OPEN(openat, (int at_fd, const char *path, int flags, ...), at_fd, at(at_fd, path), (at_fd, path, flags, mode))
OPEN(openat64, (int at_fd, const char *path, int flags, ...), at_fd, at(at_fd, path), (at_fd, path, flags, mode))

int close(int descriptor) {
    track(descriptor, 0);
    return REAL(close)(descriptor);
}

DIR *opendir(const char *path) {
    if (below(path) && fails(READS)) return NULL;
    return REAL(opendir)(path);
}

WRAP(read, ssize_t, (int fd, void *data, size_t size), (fd, data, size), held(fd), READS)
WRAP(pread, ssize_t, (int fd, void *data, size_t size, off_t from), (fd, data, size, from), held(fd), READS)
WRAP(pread64, ssize_t, (int fd, void *data, size_t size, off64_t from), (fd, data, size, from), held(fd), READS)
WRAP(stat, int, (const char *path, struct stat *info), (path, info), below(path), READS)
WRAP(stat64, int, (const char *path, struct stat64 *info), (path, info), below(path), READS)
WRAP(lstat, int, (const char *path, struct stat *info), (path, info), below(path), READS)
WRAP(lstat64, int, (const char *path, struct stat64 *info), (path, info), below(path), READS)
WRAP(readlink, ssize_t, (const char *path, char *data, size_t size), (path, data, size), below(path), READS)

WRAP(write, ssize_t, (int fd, const void *data, size_t size), (fd, data, size), held(fd), CHANGES | GROWS)
WRAP(pwrite, ssize_t, (int fd, const void *data, size_t size, off_t to), (fd, data, size, to), held(fd), CHANGES | GROWS)
WRAP(pwrite64, ssize_t, (int fd, const void *data, size_t size, off64_t to), (fd, data, size, to), held(fd), CHANGES | GROWS)
WRAP(writev, ssize_t, (int fd, const struct iovec *data, int count), (fd, data, count), held(fd), CHANGES | GROWS)
WRAP(ftruncate, int, (int fd, off_t size), (fd, size), held(fd), CHANGES | GROWS)
WRAP(ftruncate64, int, (int fd, off64_t size), (fd, size), held(fd), CHANGES | GROWS)
WRAP(fsync, int, (int fd), (fd), held(fd), CHANGES)
WRAP(fdatasync, int, (int fd), (fd), held(fd), CHANGES)
WRAP(rename, int, (const char *from, const char *to), (from, to), below(from) || below(to), CHANGES)
WRAP(renameat, int, (int a, const char *from, int b, const char *to), (a, from, b, to), at(a, from) || at(b, to), CHANGES)
WRAP(unlink, int, (const char *path), (path), below(path), CHANGES)
WRAP(unlinkat, int, (int fd, const char *path, int flags), (fd, path, flags), at(fd, path), CHANGES)
WRAP(rmdir, int, (const char *path), (path), below(path), CHANGES)
WRAP(mkdir, int, (const char *path, mode_t mode), (path, mode), below(path), CHANGES | GROWS)
WRAP(mkdirat, int, (int fd, const char *path, mode_t mode), (fd, path, mode), at(fd, path), CHANGES | GROWS)
WRAP(symlink, int, (const char *to, const char *path), (to, path), below(path), CHANGES | GROWS)
WRAP(symlinkat, int, (const char *to, int fd, const char *path), (to, fd, path), at(fd, path), CHANGES | GROWS)
WRAP(link, int, (const char *from, const char *to), (from, to), below(to), CHANGES | GROWS)
WRAP(linkat, int, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags), at(b, to), CHANGES | GROWS)
WRAP(chmod, int, (const char *path, mode_t mode), (path, mode), below(path), CHANGES)
WRAP(fchmod, int, (int fd, mode_t mode), (fd, mode), held(fd), CHANGES)
WRAP(fchmodat, int, (int fd, const char *path, mode_t mode, int flags), (fd, path, mode, flags), at(fd, path), CHANGES)
