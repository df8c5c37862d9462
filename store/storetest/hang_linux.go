package storetest

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
)

// Hang mounts what never answers the kernel at dir, as a file server that is away,
// until end or the end of the test. It skips a test that may not mount.
func Hang(t *testing.T, dir string) (end func()) {
	t.Helper()
	server, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip("takes /dev/fuse, and root")
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", server.Fd())
	if err := syscall.Mount("test", dir, "fuse", 0, options); err != nil {
		t.Skipf("no mount here: %v", err)
	}
	end = sync.OnceFunc(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return end
}
