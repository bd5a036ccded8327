// The gradients of 64 keys and their values a workgroup, without matrix units: for tests.
#import matrices_emulated
#import attention_key_value_grad_matrix
