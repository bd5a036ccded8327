// The gradients of 64 keys and their values a workgroup, on units for matrices of 8 x 8.
#import matrices_8
#import attention_key_value_grad_matrix
