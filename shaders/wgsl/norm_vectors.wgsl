// norm_rows, four elements at a time.
#import vectors
#import norm_rows
#import store
