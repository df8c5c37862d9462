package store

import (
	"context"
	"sync"
)

// Memory is a store that forgets everything when the process ends: for demos
// and tests.
type Memory struct {
	mu    sync.Mutex
	items map[string]Item
}

// NewMemory is an empty Memory.
func NewMemory() *Memory { return &Memory{items: map[string]Item{}} }

// Name is "memory".
func (m *Memory) Name() string { return "memory" }

// Load gives a copy.
func (m *Memory) Load(ctx context.Context, id string) (Item, error) {
	if err := usable(ctx, id); err != nil {
		return Item{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	item, ok := m.items[id]
	if !ok {
		return Item{}, ErrNotFound
	}
	return item.Clone(), nil
}

// Save keeps a copy.
func (m *Memory) Save(ctx context.Context, id string, item Item) error {
	if err := usable(ctx, id); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.items[id]
	old.Wipe()
	m.items[id] = item.Clone()
	return nil
}

// Delete wipes what it removes.
func (m *Memory) Delete(ctx context.Context, id string) error {
	if err := usable(ctx, id); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.items[id]
	old.Wipe()
	delete(m.items, id)
	return nil
}

// Wipe forgets every item.
func (m *Memory) Wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, item := range m.items {
		item.Wipe()
	}
	clear(m.items)
}

func usable(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return checkID(id)
}
