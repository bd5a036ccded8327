// attention_statistics_rows, four elements at a time.
#import vectors
#import team_barriers
#import attention_statistics_rows
