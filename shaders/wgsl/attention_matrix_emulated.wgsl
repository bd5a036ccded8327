// Attention with 64 queries a workgroup, without matrix units: for tests.
#import matrices_emulated
#import attention_matrix
