/* Prints the pfns in a domain's dirty log, whoever uses it, and leaves them there.
 * usage: dirty_peek DOMID PFNS */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <xenctrl.h>

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const uint64_t nr_pfns = strtoull(argv[2], NULL, 10);
  xc_interface *xc = xc_interface_open(NULL, NULL, 0);
  DECLARE_HYPERCALL_BUFFER(uint64_t, words);
  xc_shadow_op_stats_t stats;
  const size_t bytes = (nr_pfns + 63) / 64 * 8;
  if (!xc || !(words = xc_hypercall_buffer_alloc(xc, words, bytes))) return 1;
  if (xc_logdirty_control(xc, (uint32_t)atoi(argv[1]), XEN_DOMCTL_SHADOW_OP_PEEK,
                          HYPERCALL_BUFFER(words), nr_pfns, 0, &stats) < 0) {
    perror("peek");
    return 1;
  }
  for (uint64_t pfn = 0; pfn < nr_pfns; ++pfn)
    if (words[pfn / 64] >> pfn % 64 & 1) printf("%lu\n", (unsigned long)pfn);
  return 0;
}
