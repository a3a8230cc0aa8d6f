// Preloaded into a child process: logs what it asks of the kernel for durable files, in order, and
// lets some of it fail.
//   FILE_CALLS_LOG       lines `write`, `allocate`, `sync file`, `sync folder`, `link` are appended
//   to this file
//   FILE_CALLS_FAIL      `sync file` or `sync folder`: that call fails with EIO
//   FILE_CALLS_NO_DIRECT a write with O_DIRECT behind the first page fails with EINVAL, once others
//   are under way too
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void note(const char* what) {
  const char* path = getenv("FILE_CALLS_LOG");
  const int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
  if (fd < 0) return;
  dprintf(fd, "%s\n", what);
  close(fd);
}

static int fails(const char* what) {
  const char* failing = getenv("FILE_CALLS_FAIL");
  return failing && strcmp(failing, what) == 0;
}

int fsync(int fd) {
  struct stat found;
  const char* what = fstat(fd, &found) == 0 && S_ISDIR(found.st_mode) ? "sync folder" : "sync file";
  if (fails(what)) {
    errno = EIO;
    return -1;
  }
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  const int result = real(fd);
  note(what);
  return result;
}

int linkat(int from, const char* old, int to, const char* name, int flags) {
  int (*real)(int, const char*, int, const char*, int) =
      (int (*)(int, const char*, int, const char*, int))dlsym(RTLD_NEXT, "linkat");
  const int result = real(from, old, to, name, flags);
  if (result == 0) note("link");
  return result;
}

int link(const char* old, const char* name) {
  int (*real)(const char*, const char*) =
      (int (*)(const char*, const char*))dlsym(RTLD_NEXT, "link");
  const int result = real(old, name);
  if (result == 0) note("link");
  return result;
}

static int allocate(const char* symbol, int fd, int mode, off_t offset, off_t n) {
  int (*real)(int, int, off_t, off_t) = (int (*)(int, int, off_t, off_t))dlsym(RTLD_NEXT, symbol);
  if (mode == 0) note("allocate");
  return real(fd, mode, offset, n);
}

int fallocate(int fd, int mode, off_t offset, off_t n) {
  return allocate("fallocate", fd, mode, offset, n);
}
int fallocate64(int fd, int mode, off_t offset, off_t n) {
  return allocate("fallocate64", fd, mode, offset, n);
}

static ssize_t put(const char* symbol, int fd, const void* bytes, size_t n, off_t offset) {
  if (getenv("FILE_CALLS_NO_DIRECT") && offset > 0 && (fcntl(fd, F_GETFL) & O_DIRECT)) {
    usleep(500000);
    note("refused");
    errno = EINVAL;
    return -1;
  }
  ssize_t (*real)(int, const void*, size_t, off_t) =
      (ssize_t(*)(int, const void*, size_t, off_t))dlsym(RTLD_NEXT, symbol);
  const ssize_t result = real(fd, bytes, n, offset);
  note("write");
  return result;
}

ssize_t pwrite(int fd, const void* bytes, size_t n, off_t offset) {
  return put("pwrite", fd, bytes, n, offset);
}
ssize_t pwrite64(int fd, const void* bytes, size_t n, off_t offset) {
  return put("pwrite64", fd, bytes, n, offset);
}
