package store

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A look that hangs is one look, however many ask, and they wait for it once.
func TestALookThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Glance
		mended := make(chan struct{})
		var looks atomic.Int32
		hangs := func() error {
			looks.Add(1)
			<-mended
			return errors.New("late")
		}
		start := time.Now()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if err := g.Look(hangs); !errors.Is(err, ErrNoAnswer) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took != glancePatience || looks.Load() != 1 {
			t.Errorf("%d looks, %v", looks.Load(), took)
		}
		if err := g.Look(hangs); !errors.Is(err, ErrNoAnswer) || time.Since(start) != glancePatience {
			t.Errorf("the next one: %v after %v", err, time.Since(start))
		}
		close(mended)
		synctest.Wait()
		news := errors.New("news")
		if err := g.Look(func() error { return news }); err != news {
			t.Error(err)
		}
	})
}

// What is asked after a change is looked at after it.
func TestALookBeforeAChangeIsNotTheNextOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Glance
		state := "before"
		go func() {
			_ = g.Look(func() error {
				seen := state
				time.Sleep(glancePatience / 2)
				return errors.New(seen)
			})
		}()
		synctest.Wait()
		state = "after"
		if err := g.Look(func() error { return errors.New(state) }); err.Error() != "after" {
			t.Error(err)
		}
	})
}
