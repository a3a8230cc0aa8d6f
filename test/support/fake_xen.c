/*
 * Xen and xenstored as the watcher of the xen host sees them, for LD_PRELOAD: one domain, 5, whose
 * state is files of the folder $FAKE_XEN: uuid; pauses (one character each); suspended and log
 * where it is; store/ with the nodes. What is asked for is a line of the file calls.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xenstore.h>
#include <xentoollog.h>

#define DOMID 5

static const char *path_of(const char *name) {
  static char path[4096];
  snprintf(path, sizeof path, "%s/%s", getenv("FAKE_XEN"), name);
  return path;
}

static int is_there(const char *name) { return access(path_of(name), F_OK) == 0; }

static void call(const char *what) {
  FILE *file = fopen(path_of("calls"), "a");
  if (!file) abort();
  fprintf(file, "%s\n", what);
  fclose(file);
}

static void put(const char *name, const char *value, size_t length) {
  FILE *file = fopen(path_of(name), "w");
  if (!file) abort();
  fwrite(value, 1, length, file);
  fclose(file);
}

static char *get(const char *name, unsigned *length) {
  FILE *file = fopen(path_of(name), "r");
  if (!file) return NULL;
  char *value = calloc(1, 4096);
  *length = (unsigned)fread(value, 1, 4095, file);
  fclose(file);
  return value;
}

static int pauses(int change) {
  static const char dots[] = "................";
  unsigned count = 0;
  free(get("pauses", &count));
  if (change) put("pauses", dots, count + (unsigned)change);
  return (int)count + change;
}

xc_interface *xc_interface_open(xentoollog_logger *a, xentoollog_logger *b, unsigned c) {
  return (void *)1;
}
int xc_interface_close(xc_interface *xc) { return 0; }
xenforeignmemory_handle *xenforeignmemory_open(xentoollog_logger *log, unsigned flags) {
  return (void *)1;
}
int xenforeignmemory_close(xenforeignmemory_handle *handle) { return 0; }

int xc_domain_getinfolist(xc_interface *xc, uint32_t first, unsigned max, xc_domaininfo_t *info) {
  unsigned length = 0;
  char *uuid = get("uuid", &length);
  if (first > DOMID || !uuid) return 0;
  memset(info, 0, sizeof *info);
  info->domain = DOMID;
  for (int i = 0, at = 0; i < 16; i++, at += 2) {
    if (uuid[at] == '-') at++;
    sscanf(uuid + at, "%2hhx", &info->handle[i]);
  }
  free(uuid);
  if (pauses(0)) info->flags |= XEN_DOMINF_paused;
  if (is_there("suspended"))
    info->flags |= XEN_DOMINF_shutdown | SHUTDOWN_suspend << XEN_DOMINF_shutdownshift;
  return 1;
}

int xc_domain_pause(xc_interface *xc, uint32_t domid) {
  call("pause");
  pauses(1);
  return 0;
}

int xc_domain_unpause(xc_interface *xc, uint32_t domid) {
  call("unpause");
  pauses(-1);
  return 0;
}

int xc_domain_getvnuma(xc_interface *xc, uint32_t domid, uint32_t *nodes, uint32_t *ranges,
                       uint32_t *vcpus, xen_vmemrange_t *range, unsigned int *distance,
                       unsigned int *vcpu_to_node) {
  return errno = EOPNOTSUPP, -1;
}

int xc_domain_resume(xc_interface *xc, uint32_t domid, int fast) {
  call("resume");
  return unlink(path_of("suspended"));
}

int xc_domctl(xc_interface *xc, struct xen_domctl *op) {
  const int enables = op->u.shadow_op.op == XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY;
  if (op->cmd != XEN_DOMCTL_shadow_op) abort();
  if (enables && is_there("log")) return errno = EINVAL, -1;
  if (enables) put("log", "", 0);
  if (op->u.shadow_op.op == XEN_DOMCTL_SHADOW_OP_OFF) {
    if (is_there("log stays")) return errno = EIO, -1;
    call("log off");
    unlink(path_of("log"));
  }
  return 0;
}

struct xs_handle *xs_open(unsigned long flags) {
  return (void *)1;
}
void xs_close(struct xs_handle *store) {}
xs_transaction_t xs_transaction_start(struct xs_handle *store) { return 1; }
bool xs_transaction_end(struct xs_handle *store, xs_transaction_t tx, bool abort) { return true; }
bool xs_resume_domain(struct xs_handle *store, unsigned domid) { return true; }

/* Slashes become commas. */
static const char *node(const char *path) {
  static char name[512];
  snprintf(name, sizeof name, "store/%s", path + 1);
  for (char *at = name + 6; *at; at++)
    if (*at == '/') *at = ',';
  return name;
}

bool xs_write(struct xs_handle *store, xs_transaction_t tx, const char *path, const void *data,
              unsigned length) {
  put(node(path), data, length);
  return true;
}

bool xs_rm(struct xs_handle *store, xs_transaction_t tx, const char *path) {
  return unlink(path_of(node(path))) == 0;
}

/* A dead process's last request that xenstored has not got round to: the file "on its way" holds its word. */
static void do_late(xs_transaction_t tx) {
  unsigned length = 0;
  char *word = get("on its way", &length);
  if (!word) return;
  xs_write(0, tx, "/local/domain/5/dormouse/suspend", word, length);
  xs_write(0, tx, "/local/domain/5/control/shutdown", "suspend", 7);
  unlink(path_of("on its way"));
  free(word);
}

void *xs_read(struct xs_handle *store, xs_transaction_t tx, const char *path, unsigned *length) {
  void *value = get(node(path), length);
  const int missing = errno;
  do_late(tx);
  errno = missing;
  return value;
}
