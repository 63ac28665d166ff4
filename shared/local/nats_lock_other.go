//go:build !unix

package local

import "os"

// lockFile does nothing here: where there is no flock, keeping two processes off one directory is the operator's.
func lockFile(*os.File) error { return nil }

const noFollow = 0

func own(os.FileInfo) bool { return true }
