/* For LD_PRELOAD: of each pause of a domain that this process makes, page_reference writes down what the domain's memory is when it
 * begins, into FILE.begin, and right before it ends, into FILE.end; FILE is $PAUSE_REFERENCE. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xenctrl.h>

/* What was under way when the domain was paused ends meanwhile: backends and daemons go on, and write to what they share with it. */
#define SETTLE_US 300000

typedef int on_domain(xc_interface *, uint32_t);

static int real(const char *name, xc_interface *xc, uint32_t domid) {
  on_domain *call = (on_domain *)dlsym(RTLD_NEXT, name);
  if (!call) abort();
  return call(xc, domid);
}

static void write_down(uint32_t domid, const char *when) {
  const char *file = getenv("PAUSE_REFERENCE");
  char line[512];
  if (!file) return;
  snprintf(line, sizeof line, "LD_PRELOAD= /tmp/page_reference %u %s.%s > /dev/null", domid, file,
           when);
  if (system(line) != 0) abort();
}

int xc_domain_pause(xc_interface *xc, uint32_t domid) {
  const int failed = real("xc_domain_pause", xc, domid);
  if (failed) return failed;
  usleep(SETTLE_US);
  write_down(domid, "begin");
  return 0;
}

int xc_domain_unpause(xc_interface *xc, uint32_t domid) {
  write_down(domid, "end");
  return real("xc_domain_unpause", xc, domid);
}
