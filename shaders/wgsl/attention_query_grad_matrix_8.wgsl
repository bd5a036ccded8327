// The gradient of 64 queries a workgroup, on units for matrices of 8 x 8.
#import matrices_8
#import attention_query_grad_matrix
