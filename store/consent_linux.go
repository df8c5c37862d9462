package store

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// desktop reaches items in the Secret Service of the session.
type desktop struct {
	wishes atomic.Uint64 // how often AskAgain was called

	mu       sync.Mutex
	lines    map[string]*line // by the item's id
	era      context.Context  // ends with Close
	end      func()
	watchers []chan struct{}
}

// running is a call on its way.
type running struct {
	cancel   func()
	answered chan answer // has room for one

	mu   sync.Mutex
	asks error // what it waits for, while that may be a person; else nil
	left bool  // by its caller
}

type answer struct {
	b   []byte
	err error
}

// An itemCall is what is asked of the service once it is known to be unlocked.
type itemCall struct {
	reads  bool
	secret []byte // to be cleared after the call
	do     func(context.Context, *secretService) ([]byte, error)
}

func (d *desktop) Load(ctx context.Context, id string) ([]byte, error) {
	return d.call(ctx, id, itemCall{reads: true, do: func(ctx context.Context, s *secretService) ([]byte, error) {
		return s.load(ctx, id)
	}})
}

func (d *desktop) Save(ctx context.Context, id string, b []byte) error {
	b = slices.Clone(b) // the call may outlive its caller
	_, err := d.call(ctx, id, itemCall{secret: b, do: func(ctx context.Context, s *secretService) ([]byte, error) {
		return nil, s.save(ctx, id, b)
	}})
	return err
}

func (d *desktop) Delete(ctx context.Context, id string) error {
	_, err := d.call(ctx, id, itemCall{do: func(ctx context.Context, s *secretService) ([]byte, error) {
		if err := s.delete(ctx, id); err != nil {
			return nil, err
		}
		return nil, ErrNotFound // from now on, so the line is closed
	}})
	return err
}

// line returns the line of an item, and a context that ends with Close. The caller
// must leave the line.
func (d *desktop) line(id string) (l *line, era context.Context, leave func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lines == nil {
		d.lines = map[string]*line{}
		d.era, d.end = context.WithCancel(context.Background())
	}
	l = d.lines[id]
	if l == nil {
		l = &line{turn: make(chan struct{}, 1)}
		d.lines[id] = l
	}
	l.users++
	return l, d.era, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if l.users--; l.users == 0 && l.service == nil && l.refused == nil && l.late == nil {
			delete(d.lines, id)
		}
	}
}

// call makes c on the item's line. It returns when ctx ends, even if c goes on.
func (d *desktop) call(ctx context.Context, id string, c itemCall) ([]byte, error) {
	l, era, leave := d.line(id)
	if err := l.take(ctx); err != nil {
		leave()
		clear(c.secret)
		return nil, err
	}
	late := l.takeLate()
	if late != nil && c.reads {
		<-l.turn
		leave()
		return late, nil
	}
	clear(late)
	own, cancel := context.WithCancel(era)
	r := &running{cancel: cancel, answered: make(chan answer, 1)}
	l.now.Store(r)
	go func() { // ends with own, or when the service answers
		b, err := l.run(own, d, r, c)
		cancel()
		clear(c.secret)
		late := r.answer(b, err)
		if late && b != nil {
			l.keep(b)
		}
		l.now.Store(nil)
		if era.Err() != nil {
			l.forget()
		}
		<-l.turn
		leave()
		if late {
			d.answered()
		}
	}()
	select {
	case a := <-r.answered:
		return a.b, a.err
	case <-ctx.Done():
		return r.leave()
	}
}

// answer reports whether the caller has left without it.
func (r *running) answer(b []byte, err error) (late bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.left {
		r.answered <- answer{b, err}
	}
	return r.left
}

// wait sets what the call waits for.
func (r *running) wait(asks error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asks = asks
}

// leave is for a caller whose time is up. It ends the call, unless that waits for
// a person.
func (r *running) leave() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case a := <-r.answered:
		return a.b, a.err
	default:
	}
	r.left = true
	if r.asks == nil {
		r.cancel()
		return nil, unavailable(reasonFrozen, nil)
	}
	return nil, r.asks
}

// waits returns what the call waits for. Nil unless that may be a person.
func (r *running) waits() (asks error, left bool) {
	if r == nil {
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asks, r.left
}

// AskAgain lets the next call ask a person who has refused. A window that is open
// stays: it asks already.
func (d *desktop) AskAgain() { d.wishes.Add(1) }

// Close ends all calls and connections.
func (d *desktop) Close() {
	d.mu.Lock()
	if d.end != nil {
		d.end()
		d.era, d.end = context.WithCancel(context.Background())
	}
	ids := slices.Collect(maps.Keys(d.lines))
	d.mu.Unlock()
	for _, id := range ids {
		l, _, leave := d.line(id)
		if r := l.now.Load(); r != nil {
			r.wait(nil) // it forgets the line itself, and waits for nobody now
		}
		l.idle((*line).forget)
		leave()
	}
}

// answered tells who watches that a person has answered.
func (d *desktop) answered() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.watchers {
		poke(w)
	}
}

// poke sends a value, unless one is waiting already.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
