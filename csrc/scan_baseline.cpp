// Linear recurrences for every processor of the architecture.
#include "kernels.h"
#include "scan.h"
#include "sequence.h"

#define SEQMEM_ISA baseline
#define SEQMEM_VECTOR_BYTES 16
#include "scan_table.h"
