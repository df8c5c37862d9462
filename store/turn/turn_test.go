package turn

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Ten goroutines come one after the other, and each holds the lock for longer than
// all the others need to come.
func TestTurnsAreInOrderAndOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Mutex
		var order []int
		inside := 0
		for i := range 10 {
			go func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				m.Lock()
				defer m.Unlock()
				if inside++; inside != 1 {
					t.Errorf("%d hold it", inside)
				}
				time.Sleep(time.Second) // stands still if those who wait do not let time go on
				order = append(order, i)
				inside--
			}()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !slices.Equal(order, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
			t.Errorf("served in the order %v", order)
		}
		m.Lock() // free again
		defer m.Unlock()
	})
}

// Ten goroutines come one after the other for three slots.
func TestSlotsAreGivenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := NewSlots(3)
		came := make(chan int, 10)
		for i := range 10 {
			go func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				slots.Enter()
				defer slots.Leave()
				came <- i
				time.Sleep(time.Second)
			}()
		}
		for round, want := range []int{3, 6, 9, 10} {
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
			if len(came) != want {
				t.Errorf("round %d: %d came", round, len(came))
			}
			time.Sleep(500 * time.Millisecond)
		}
		close(came)
		want := 0
		for i := range came {
			if i != want {
				t.Errorf("%d came in the place of %d", i, want)
			}
			want++
		}
		time.Sleep(time.Minute)
	})
}

func TestAnUnlockTooManyPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("nothing was said")
		}
	}()
	new(Mutex).Unlock()
}
