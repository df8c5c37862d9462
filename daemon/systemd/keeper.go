package systemd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
)

// A Keeper has systemd hold some bytes over a restart of the daemon: in a sealed
// memory file, in the service's descriptor store (sd_pid_notify_with_fds(3),
// FileDescriptorStoreMax=). They touch no disk, and they are there again after a
// crash, an upgrade or a hang.
//
// Any program of the same user can read them through the service manager. So
// they may hold what the socket tells that program too, and nothing else.
type Keeper struct {
	store descriptorStore // nil where systemd did not start the daemon
	dirty chan struct{}   // holds one: the bytes have changed
	state atomic.Value    // string, what State says: status waits for no exchange

	mu     sync.Mutex // covers a whole exchange with systemd
	serial uint64     // of the last file
	slot   int        // of the file that is held, if any
}

// A descriptorStore is systemd's, as far as a Keeper needs it.
type descriptorStore interface {
	// put pushes data as a sealed file called name, and returns when systemd has
	// dealt with it.
	put(name string, data []byte) error
	remove(name string) error
}

const (
	keptVersion = 1
	keptMax     = 4 << 20 // bytes; a token of 2 KiB for each of a thousand profiles
)

// kept is what a file holds. Of two files the one with the higher Serial counts.
type kept struct {
	Version int             `json:"version"`
	Serial  uint64          `json:"serial"`
	Data    json.RawMessage `json:"profiles"`
}

// NewKeeper returns a Keeper for the manager that $NOTIFY_SOCKET names.
func NewKeeper() *Keeper { return newKeeper(newDescriptorStore()) }

func newKeeper(store descriptorStore) *Keeper {
	k := &Keeper{store: store, dirty: make(chan struct{}, 1)}
	k.state.Store(nothing)
	return k
}

// Changed asks for a Keep, soon. It never blocks.
func (k *Keeper) Changed() {
	select {
	case k.dirty <- struct{}{}:
	default: // it was asked for already
	}
}

// Changes receives a value after calls of Changed.
func (k *Keeper) Changes() <-chan struct{} { return k.dirty }

// Keep replaces what systemd holds by what gather returns: one JSON value, which
// Keep clears, or nil for nothing. Gathering and pushing are one step, because
// what was gathered before a lock must not be pushed after it.
func (k *Keeper) Keep(gather func() []byte) error {
	if k.store == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	data := gather()
	defer clear(data)
	err := k.replace(data)
	switch {
	case err != nil:
		k.state.Store("no: " + err.Error())
	case data == nil:
		k.state.Store(nothing)
	default:
		k.state.Store("yes")
	}
	return err
}

// replace pushes the new file first and removes the old one afterwards. A full
// store drops a file in silence, so it must have room for two. If there is
// nothing to keep, replace removes both names, because a crash or a push that
// failed halfway can have left a file under either.
func (k *Keeper) replace(data []byte) error {
	if data == nil {
		return errors.Join(k.store.remove(slotName(0)), k.store.remove(slotName(1)))
	}
	k.serial++
	file := encodeKept(k.serial, data)
	defer clear(file)
	next := 1 - k.slot
	// A file that is there under the same name would stay beside the new one.
	if err := k.store.remove(slotName(next)); err != nil {
		return err
	}
	if err := k.store.put(slotName(next), file); err != nil {
		return err
	}
	k.slot = next
	return k.store.remove(slotName(1 - next))
}

// slotName names a file. The slots alternate, so that the new file is there
// before the old one goes.
func slotName(slot int) string { return keptPrefix + strconv.Itoa(slot) }

// encodeKept does not use encoding/json, which would leave a copy of data in a
// buffer that cannot be cleared.
func encodeKept(serial uint64, data []byte) []byte {
	head := fmt.Appendf(nil, `{"version":%d,"serial":%d,"profiles":`, keptVersion, serial)
	file := make([]byte, 0, len(head)+len(data)+1)
	return append(append(append(file, head...), data...), '}')
}

// nothing is what State says when there are no bytes.
const nothing = "nothing to keep"

// State is for status: whether systemd holds the bytes, and if not, why.
func (k *Keeper) State() string {
	if k.store == nil {
		return "no: the daemon was not started by systemd"
	}
	return k.state.Load().(string)
}

// Take reads the bytes that the daemon before this one kept, and closes files,
// the descriptors from Activated. A crash can have left two files: the one with
// the highest serial counts. The bytes are nil if none could be read; the error
// is about each file that could not.
func (k *Keeper) Take(files []*os.File) ([]byte, error) {
	var best kept
	var errs []error
	for _, f := range files {
		content, err := readKept(f)
		_ = f.Close()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if content.Serial <= best.Serial {
			clear(content.Data)
			continue
		}
		clear(best.Data)
		best = content
		k.slot = 0
		k.state.Store("yes")
		if f.Name() == slotName(1) {
			k.slot = 1
		}
	}
	k.serial = best.Serial
	return best.Data, errors.Join(errs...)
}

// readKept reads by position, because whoever else holds the file shares its
// offset.
func readKept(f *os.File) (kept, error) {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, keptMax))
	defer clear(data)
	if err != nil {
		return kept{}, err
	}
	return parseKept(data)
}

// parseKept reads only what encodeKept wrote.
func parseKept(data []byte) (kept, error) {
	var k kept
	if err := json.Unmarshal(data, &k); err != nil {
		return kept{}, errors.New("kept tokens are not readable") // the library's text may quote one
	}
	if k.Version != keptVersion {
		return kept{}, fmt.Errorf("kept tokens are of version %d", k.Version)
	}
	return k, nil
}
