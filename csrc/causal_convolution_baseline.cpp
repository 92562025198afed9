// Causal convolution for every processor of the architecture.
#include "causal_convolution.h"

#define SEQMEM_ISA baseline
#define SEQMEM_VECTOR_BYTES 16
#include "causal_convolution_table.h"
