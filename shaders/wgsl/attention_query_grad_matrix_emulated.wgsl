// The gradient of 64 queries a workgroup, without matrix units: for tests.
#import matrices_emulated
#import attention_query_grad_matrix
