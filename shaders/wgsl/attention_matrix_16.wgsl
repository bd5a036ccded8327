// Attention with 64 queries a workgroup, on units for matrices of 16 x 16.
#import matrices_16
#import attention_matrix
