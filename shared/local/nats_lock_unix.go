//go:build unix

package local

import (
	"os"
	"syscall"
)

// lockFile takes a lock that ends with the process, however it ends.
func lockFile(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// noFollow has a link refused where a file is opened.
const noFollow = syscall.O_NOFOLLOW

// own says whether a file is this user's or root's. A volume's group may write to it, which Kubernetes' fsGroup sees to.
func own(info os.FileInfo) bool {
	owner, known := info.Sys().(*syscall.Stat_t)
	uid := uint32(os.Geteuid())
	return info.Mode().IsRegular() && info.Mode().Perm()&0o002 == 0 && known && (owner.Uid == uid || owner.Uid == 0 || uid == 0)
}
