// cross_entropy_grad_rows, four elements at a time.
#import vectors
#import cross_entropy_grad_rows
