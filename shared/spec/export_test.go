package spec

// Timely is how long a file is waited for, whatever reads it.
var Timely = timely
