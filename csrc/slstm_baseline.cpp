// sLSTM loops for every processor of the architecture.
#include "slstm.h"

#define SEQMEM_ISA baseline
#define SEQMEM_VECTOR_BYTES 16
#include "slstm_table.h"
