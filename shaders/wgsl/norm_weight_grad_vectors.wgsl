// norm_weight_grad_rows, four elements at a time.
#import vectors
#import norm_weight_grad_rows
