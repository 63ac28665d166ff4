package spec

// InTime is for a test of files that nobody can make.
var InTime = inTime
