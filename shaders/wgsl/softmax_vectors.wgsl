// softmax_rows, four elements at a time.
#import vectors
#import softmax_rows
