// softmax_rows, four elements at a time.
#import vectors
#import team_barriers
#import softmax_rows
