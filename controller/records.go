package controller

import (
	"context"
	"log/slog"

	"paddock/controller/store"
	"paddock/pool"
)

// Records is a controller's own writer of assignment records without the rest of it: for the simulation of many controllers, whose
// containers are only counted.
type Records struct{ a *assignments }

// NewRecords returns the writer of one controller. Nothing is written before Run.
func NewRecords(controller string, s store.Store, log *slog.Logger) *Records {
	return &Records{newAssignments(controller, s, log)}
}

// Want asks for a record, Drop for its end. Neither blocks.
func (r *Records) Want(a pool.Assignment) { r.a.want(a) }

// Drop asks for the end of a record.
func (r *Records) Drop(a pool.Assignment) { r.a.drop(a) }

// Run writes until ctx ends.
func (r *Records) Run(ctx context.Context) { r.a.run(ctx) }
