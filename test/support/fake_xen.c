/*
 * Xen and xenstored as the xen host and its watcher see them, for LD_PRELOAD: one domain, 5, whose
 * state is files of the folder $FAKE_XEN: uuid; pauses (one character each); suspended, log and pvh
 * where it is; store/ with the nodes. What is asked for is a line of the file calls. With the file
 * "stuck" it cannot be unpaused, with "another pauses" somebody does once we unpaused, with "log
 * fails" the log cannot be looked at, with "late watcher" one that goes on trying begins late.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xen/grant_table.h>
#include <xencall.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xenguest.h>
#include <xenstore.h>
#include <xentoollog.h>

#define DOMID 5
#define PAGES 64

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

/* The last thing that a watcher does before nobody waits for it any more. */
int dup2(int from, int to) {
  const int made = (int)syscall(SYS_dup2, from, to);
  if (to == 2 && is_there("late watcher")) sleep(1);
  return made;
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
  if (is_there("pvh")) {
    info->flags |= XEN_DOMINF_hvm_guest;
    info->tot_pages = PAGES;
  }
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
  if (is_there("stuck")) return errno = ENOMEM, -1;
  call("unpause");
  pauses(-1);
  if (unlink(path_of("another pauses")) == 0) pauses(1);
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

/* All of a translated domain's pages are plain ones. */
static int types_of(struct xen_domctl *op) {
  xen_pfn_t *types;
  memcpy(&types, &op->u.getpageframeinfo3.array, sizeof types);
  for (unsigned i = 0; i < op->u.getpageframeinfo3.num; i++)
    types[i] = types[i] < PAGES ? 0 : XEN_DOMCTL_PFINFO_XTAB;
  return 0;
}

int xc_domctl(xc_interface *xc, struct xen_domctl *op) {
  const int enables = op->u.shadow_op.op == XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY;
  if (op->cmd == XEN_DOMCTL_getpageframeinfo3) return types_of(op);
  if (op->cmd != XEN_DOMCTL_shadow_op) abort();
  if (enables && is_there("log")) return errno = EINVAL, -1;
  if (enables) put("log", "", 0);
  if (op->u.shadow_op.op == XEN_DOMCTL_SHADOW_OP_PEEK) {
    call("look at the log");
    if (is_there("log fails")) return errno = EIO, -1;
  }
  if (op->u.shadow_op.op == XEN_DOMCTL_SHADOW_OP_OFF) {
    if (is_there("log stays")) return errno = EIO, -1;
    call("log off");
    unlink(path_of("log"));
  }
  return 0;
}

static int mapped;

static void count_mapped(const char *what) {
  char line[64];
  snprintf(line, sizeof line, "%s: %d mapped", what, mapped);
  call(line);
}

void *xenforeignmemory_map(xenforeignmemory_handle *handle, uint32_t domid, int prot, size_t pages,
                           const xen_pfn_t frames[], int errors[]) {
  memset(errors, 0, pages * sizeof *errors);
  mapped++;
  return mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int xenforeignmemory_unmap(xenforeignmemory_handle *handle, void *at, size_t pages) {
  mapped--;
  count_mapped("unmap");
  return munmap(at, pages * 4096);
}

xencall_handle *xc_interface_xcall_handle(xc_interface *xc) { return (void *)1; }
void *xencall_alloc_buffer(xencall_handle *calls, size_t bytes) { return malloc(bytes); }
void xencall_free_buffer(xencall_handle *calls, void *buffer) { free(buffer); }

int xc_domain_nr_gpfns(xc_interface *xc, uint32_t domid, xen_pfn_t *pfns) {
  *pfns = PAGES;
  return 0;
}

xc_cpu_policy_t *xc_cpu_policy_init(void) { return malloc(1); }
void xc_cpu_policy_destroy(xc_cpu_policy_t *policy) { free(policy); }
int xc_cpu_policy_get_domain(xc_interface *xc, uint32_t domid, xc_cpu_policy_t *policy) {
  call("policies");
  return 0;
}
int xc_cpu_policy_get_size(xc_interface *xc, uint32_t *leaves, uint32_t *msrs) {
  *leaves = *msrs = 1;
  return 0;
}
int xc_cpu_policy_serialise(xc_interface *xc, const xc_cpu_policy_t *policy,
                            xen_cpuid_leaf_t *leaves, uint32_t *nr_leaves, xen_msr_entry_t *msrs,
                            uint32_t *nr_msrs) {
  return 0;
}

int xc_gnttab_op(xc_interface *xc, int cmd, void *op, int bytes, int count) {
  if (cmd == GNTTABOP_query_size) {
    ((struct gnttab_query_size *)op)->nr_frames = 1;
  } else if (cmd == GNTTABOP_setup_table) {
    xen_pfn_t *frames;
    memcpy(&frames, &((struct gnttab_setup_table *)op)->frame_list, sizeof frames);
    frames[0] = 7;
  }
  return 0;
}
int xc_gnttab_get_version(xc_interface *xc, uint32_t domid) {
  call("grants");
  return 1;
}

int xc_domain_get_tsc_info(xc_interface *xc, uint32_t domid, uint32_t *mode, uint64_t *ns,
                           uint32_t *khz, uint32_t *incarnation) {
  call("registers");
  *mode = *khz = *incarnation = 0;
  *ns = 0;
  return 0;
}
int xc_domain_hvm_getcontext(xc_interface *xc, uint32_t domid, uint8_t *context, uint32_t bytes) {
  if (context) memset(context, 0, bytes);
  return 16;
}
int xc_domain_hvm_getcontext_partial(xc_interface *xc, uint32_t domid, uint16_t type, uint16_t id,
                                     void *context, uint32_t bytes) {
  call("vCPU");
  memset(context, 0, bytes);
  return 0;
}
int xc_hvm_param_get(xc_interface *xc, uint32_t domid, uint32_t param, uint64_t *value) {
  *value = 0;
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

/* A dead process's last request that xenstored has not got round to: the file "on its way" holds
 * its word. */
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
