// The gradients of 64 keys and their values a workgroup, on units for matrices of 16 x 16.
#import matrices_16
#import attention_key_value_grad_matrix
