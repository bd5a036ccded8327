// attention_statistics_rows, four elements at a time.
#import vectors
#import attention_statistics_rows
