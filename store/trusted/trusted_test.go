package trusted_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"bloq-agent/store/trusted"
)

const stranger = 65534 // neither us nor root

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, mode fs.FileMode) string {
	t.Helper()
	must(t, os.WriteFile(path, []byte("content"), 0o600))
	must(t, os.Chmod(path, mode))
	return path
}

func TestAFileThatIsNotThereIsNotThere(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o777)) // what others could put there is not there yet
	for _, path := range []string{dir + "/none", dir + "/none/none"} {
		_, err := trusted.ReadFile(path)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestAFifoHoldsNobodyUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	must(t, syscall.Mkfifo(path, 0o600))
	_, err := trusted.ReadFile(path)
	if want := path + " is not a regular file"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
