// softmax_grad_rows, four elements at a time.
#import vectors
#import softmax_grad_rows
