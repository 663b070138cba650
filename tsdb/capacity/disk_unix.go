//go:build linux || darwin

package capacity

import "syscall"

// statDisk is Disk.Stat. Space that only root may use is not free.
func statDisk(dir string) (free, size uint64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}
