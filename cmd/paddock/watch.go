package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settleTime is how long a folder has to be quiet before it is looked at: editors write a file in several steps, and a
// checkout writes many.
const settleTime = 60 * time.Millisecond

// watcher tells when something happens in the folders of some files. Folders are watched, not files: editors replace a file
// by another one of its name. Used by one goroutine.
type watcher struct {
	notify  *fsnotify.Watcher
	folders map[string]bool
}

func newWatcher() (*watcher, error) {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, platformError("watching files: %w", err)
	}
	return &watcher{notify: n, folders: map[string]bool{}}, nil
}

func (w *watcher) close() { w.notify.Close() }

// watch makes the folders of files those that are watched. Installed modules are left out: they are many and change rarely.
// It says whether there are new ones.
func (w *watcher) watch(files []string) (added bool, err error) {
	wanted := map[string]bool{}
	for _, file := range files {
		if file == "" || strings.Contains(file, "/node_modules/") {
			continue
		}
		if info, err := os.Stat(file); err != nil || !info.IsDir() {
			file = filepath.Dir(file)
		}
		wanted[filepath.Clean(file)] = true
	}
	for folder := range wanted {
		// Again, even if it is known: a folder that was removed and made anew is another one.
		if err := w.notify.Add(folder); err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, platformError("watching %s: %w", folder, err)
		}
		added = added || !w.folders[folder]
	}
	for folder := range w.folders {
		if !wanted[folder] {
			_ = w.notify.Remove(folder) // gone already, perhaps
		}
	}
	w.folders = wanted
	return added, nil
}

// wait returns once something has happened and it has become quiet, or when ctx ends.
func (w *watcher) wait(ctx context.Context) error {
	var quiet <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-w.notify.Events:
			if !ok {
				return errors.New("watching files ended")
			}
			quiet = time.After(settleTime)
		case err := <-w.notify.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) { // more than could be told: look at all of it
				return platformError("watching files: %w", err)
			}
			quiet = time.After(settleTime)
		case <-quiet:
			return nil
		}
	}
}
