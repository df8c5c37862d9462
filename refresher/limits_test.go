package refresher

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// The figures here are promises (design, PROTOCOL.md section 5), so they stand
// here as numbers: a constant that is changed must fail.

// A request starts an attempt 5 s after the last one ended, and not sooner;
// when it started does not matter.
func TestARequestStartsAnAttemptFiveSecondsAfterTheLastEnded(t *testing.T) {
	e := &endpoint{err: errDown, delay: 3 * time.Second}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		time.Sleep(time.Hour) // the loop's own tries are minutes apart now
		s := r.Snapshot()
		<-s.Changed()
		ended, n := time.Now(), e.count()
		ask := func(after time.Duration) int {
			time.Sleep(time.Until(ended.Add(after)))
			if _, err := r.Token(t.Context(), 0); err == nil {
				t.Error("a token from nowhere")
			}
			return e.count() - n
		}
		for _, after := range []time.Duration{0, 2 * time.Second, 4900 * time.Millisecond} {
			if got := ask(after); got != 0 {
				t.Errorf("%d attempts %v after the last ended", got, after)
			}
		}
		if got := ask(5 * time.Second); got != 1 {
			t.Errorf("%d attempts 5 s after the last ended", got)
		}
	})
}

func TestAnExchangeIsGivenUpAfter20Seconds(t *testing.T) {
	e := &endpoint{delay: time.Hour}
	bubble(t, e, func(t *testing.T, r *Refresher) {
		start := time.Now()
		<-r.Snapshot().Changed()
		if d := time.Since(start); d != 20*time.Second || !errors.Is(r.Snapshot().Err, context.DeadlineExceeded) {
			t.Errorf("given up after %v: %v", d, r.Snapshot().Err)
		}
	})
}

// A store that hangs holds a good token back for 10 s and no longer.
func TestASaveIsGivenUpAfter10Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{lifetime: time.Hour, rotate: true}
		hang := func(ctx context.Context, _ []byte) error {
			<-ctx.Done()
			return ctx.Err()
		}
		r := New(Config{Exchange: e.exchange, Save: hang})
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		start := time.Now()
		tok := mustToken(t, r, 0)
		if d := time.Since(start); d != 10*time.Second || string(tok.Value) != "access-1" || r.Snapshot().SaveErr == nil {
			t.Errorf("%s after %v, %v", tok.Value, d, r.Snapshot().SaveErr)
		}
		cancel()
		<-r.done
	})
}
