// Selective scan for every processor of the architecture.
#include "selective_scan.h"

#define SEQMEM_ISA baseline
#define SEQMEM_VECTOR_BYTES 16
#include "selective_scan_table.h"
