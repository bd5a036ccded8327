// attention_statistics_rows, four elements at a time, by subgroups.
#import vectors
#import team_subgroups
#import attention_statistics_rows
