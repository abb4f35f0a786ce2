package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
)

// operationPrefix begins the name of every operation.
const operationPrefix = "operations/"

// keptOperations is how many that have ended are remembered.
const keptOperations = 200

// operations is the standard Operations service, and the operations themselves. Each is a file, replaced atomically when
// something that matters after a restart changes, so that none is forgotten. None depends on the call that began it.
type operations struct {
	longrunningpb.UnimplementedOperationsServer
	dir string
	log *slog.Logger
	now func() time.Time

	ctx    context.Context // ends them all
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	byName map[string]*operation
	seq    int
	closed bool
}

// operation is one prune.
type operation struct {
	name   string
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	state   *longrunningpb.Operation // replaced, never changed
	meta    *secateurv1.PruneMetadata
	changed chan struct{} // closed at each change
}

// errCancelled ends an operation at a caller's wish.
var errCancelled = errors.New("cancelled at a caller's request")

func openOperations(dir string, log *slog.Logger, now func() time.Time) (*operations, error) {
	if err := cleanFolder(dir); err != nil {
		return nil, fmt.Errorf("open operations: %w", err)
	}
	o := &operations{dir: dir, log: log, now: now, byName: map[string]*operation{}}
	o.ctx, o.cancel = context.WithCancelCause(context.Background())
	es, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open operations: %w", err)
	}
	for _, e := range es {
		id, ok := strings.CutSuffix(e.Name(), ".op")
		if !ok {
			continue
		}
		if err := o.recover(operationPrefix+id, filepath.Join(dir, e.Name())); err != nil {
			log.Error("operation is not readable", "operation", id, "error", err)
		}
	}
	o.forget()
	return o, nil
}

// recover reads an operation. One that had not ended when the last process did has failed.
func (o *operations) recover(name, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	op := &operation{name: name, cancel: func(error) {}, state: &longrunningpb.Operation{}, meta: &secateurv1.PruneMetadata{}, changed: make(chan struct{})}
	if err := proto.Unmarshal(b, op.state); err != nil {
		return err
	}
	op.state.Name = name
	if op.state.Metadata != nil {
		if err := op.state.Metadata.UnmarshalTo(op.meta); err != nil {
			return err
		}
	}
	o.byName[name] = op
	if !op.state.Done {
		o.log.Warn("operation did not end before the server did", "operation", name)
		o.end(op, nil, errRestarted)
	}
	return nil
}

// start runs f as an operation, in a goroutine of its own.
func (o *operations) start(meta *secateurv1.PruneMetadata, f func(ctx context.Context, op *operation) (proto.Message, error)) (*operation, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.refuse(meta.Model); err != nil {
		return nil, err
	}
	o.seq++
	meta.StartTime = timestamppb.New(o.now())
	// Names sort by time.
	op := &operation{name: fmt.Sprintf("%sprune-%s-%04d", operationPrefix, o.now().UTC().Format("20060102T150405.000000"), o.seq), changed: make(chan struct{})}
	op.set(func(m *secateurv1.PruneMetadata) { proto.Merge(m, meta) })
	ctx, cancel := context.WithCancelCause(o.ctx)
	op.cancel = cancel
	if err := o.save(op); err != nil {
		cancel(nil)
		return nil, fmt.Errorf("begin operation: %w", err)
	}
	o.byName[op.name] = op
	o.forget()
	o.wg.Go(func() {
		defer cancel(nil)
		result, err := guard(func() (proto.Message, error) { return f(ctx, op) })
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		o.end(op, result, err)
	})
	return op, nil
}

// guard turns a panic into an error.
func guard(f func() (proto.Message, error)) (m proto.Message, err error) {
	defer func() {
		if v := recover(); v != nil {
			m, err = nil, fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return f()
}

// end records the outcome. The result stands even if it cannot be written: then a restart says that it failed.
func (o *operations) end(op *operation, result proto.Message, err error) {
	op.mu.Lock()
	next := proto.CloneOf(op.state)
	op.meta = proto.CloneOf(op.meta)
	op.meta.EndTime = timestamppb.New(o.now())
	next.Name, next.Done, next.Metadata = op.name, true, pack(op.meta)
	if err == nil {
		next.Result = &longrunningpb.Operation_Response{Response: pack(result)}
	} else {
		if errors.Is(err, errCancelled) {
			err = context.Canceled
		}
		next.Result = &longrunningpb.Operation_Error{Error: statusOf(err).Proto()}
	}
	op.publish(next)
	op.mu.Unlock()
	if err != nil {
		o.log.Error("operation failed", "operation", op.name, "model", op.meta.Model, "error", err)
	} else {
		o.log.Info("operation done", "operation", op.name, "model", op.meta.Model)
	}
	if err := o.save(op); err != nil {
		o.log.Error("operation is not written", "operation", op.name, "error", err)
	}
}

// pack cannot fail for our own messages.
func pack(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(fmt.Sprintf("server: %T does not marshal: %v", m, err))
	}
	return a
}

// publish replaces the state and wakes who waits. op.mu is held.
func (op *operation) publish(next *longrunningpb.Operation) {
	op.state = next
	close(op.changed)
	op.changed = make(chan struct{})
}

// set changes the metadata.
func (op *operation) set(f func(*secateurv1.PruneMetadata)) {
	op.mu.Lock()
	defer op.mu.Unlock()
	if op.meta == nil {
		op.meta = &secateurv1.PruneMetadata{}
	}
	op.meta = proto.CloneOf(op.meta)
	f(op.meta)
	op.publish(&longrunningpb.Operation{Name: op.name, Metadata: pack(op.meta)})
}

// get returns the state; neither may be changed.
func (op *operation) get() (*longrunningpb.Operation, *secateurv1.PruneMetadata) {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.state, op.meta
}

// watch is get, with a channel that is closed at the next change.
func (op *operation) watch() (*longrunningpb.Operation, *secateurv1.PruneMetadata, <-chan struct{}) {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.state, op.meta, op.changed
}

func (o *operations) path(op *operation) string {
	return filepath.Join(o.dir, strings.TrimPrefix(op.name, operationPrefix)+".op")
}

func (o *operations) save(op *operation) error {
	st, _ := op.get()
	b, err := proto.Marshal(st)
	if err != nil {
		return err
	}
	return replaceFile(o.path(op), b)
}

// find returns an operation. The name comes from outside and is only ever a key.
func (o *operations) find(name string) (*operation, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if op := o.byName[name]; op != nil {
		return op, nil
	}
	return nil, &missingError{resourceOperation, name}
}

// refuse is why no operation on the model may begin now. o.mu is held.
func (o *operations) refuse(model string) error {
	if o.closed {
		return errDraining
	}
	for _, op := range o.byName {
		if st, m := op.get(); !st.Done && m.Model == model {
			return &pruneRunningError{model, op.name}
		}
	}
	return nil
}

// free tells beforehand what start would say.
func (o *operations) free(model string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.refuse(model)
}

// forget drops the oldest that have ended. o.mu is held, or nobody else is there yet.
func (o *operations) forget() {
	var done []*operation
	for _, op := range o.byName {
		if st, _ := op.get(); st.Done {
			done = append(done, op)
		}
	}
	slices.SortFunc(done, func(a, b *operation) int { return cmp.Compare(b.name, a.name) })
	for i := keptOperations; i < len(done); i++ {
		o.drop(done[i])
	}
}

func (o *operations) drop(op *operation) {
	delete(o.byName, op.name)
	if err := os.Remove(o.path(op)); err != nil && !errors.Is(err, os.ErrNotExist) {
		o.log.Error("operation is not removed", "operation", op.name, "error", err)
	}
}

// stop ends all that run, and waits for them.
func (o *operations) stop() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.cancel(errRestarted)
	o.wg.Wait()
}

// GetOperation implements the Operations service.
func (o *operations) GetOperation(_ context.Context, req *longrunningpb.GetOperationRequest) (*longrunningpb.Operation, error) {
	op, err := o.find(req.GetName())
	if err != nil {
		return nil, err
	}
	st, _ := op.get()
	return st, nil
}

// ListOperations implements the Operations service: the newest first. The only filters are "", "done=true" and "done=false".
func (o *operations) ListOperations(_ context.Context, req *longrunningpb.ListOperationsRequest) (*longrunningpb.ListOperationsResponse, error) {
	keep := func(bool) bool { return true }
	switch req.GetFilter() {
	case "":
	case "done=true":
		keep = func(done bool) bool { return done }
	case "done=false":
		keep = func(done bool) bool { return !done }
	default:
		return nil, badField("filter", "%q is neither done=true nor done=false", req.GetFilter())
	}
	if req.GetPageSize() < 0 {
		return nil, badField("page_size", "%d is negative", req.GetPageSize())
	}
	size := int(req.GetPageSize())
	if size == 0 || size > 100 {
		size = 100
	}
	o.mu.Lock()
	all := slices.SortedFunc(maps.Values(o.byName), func(a, b *operation) int { return cmp.Compare(b.name, a.name) })
	o.mu.Unlock()
	out := &longrunningpb.ListOperationsResponse{}
	for _, op := range all {
		if t := req.GetPageToken(); t != "" && op.name >= t {
			continue
		}
		st, _ := op.get()
		if !keep(st.Done) {
			continue
		}
		if len(out.Operations) == size {
			out.NextPageToken = out.Operations[size-1].Name
			break
		}
		out.Operations = append(out.Operations, st)
	}
	return out, nil
}

// CancelOperation implements the Operations service. It returns before the operation has ended; one that has ended stays
// as it is.
func (o *operations) CancelOperation(_ context.Context, req *longrunningpb.CancelOperationRequest) (*emptypb.Empty, error) {
	op, err := o.find(req.GetName())
	if err != nil {
		return nil, err
	}
	op.mu.Lock()
	if !op.state.Done {
		op.meta = proto.CloneOf(op.meta)
		op.meta.CancelRequested = true
		op.publish(&longrunningpb.Operation{Name: op.name, Metadata: pack(op.meta)})
	}
	op.mu.Unlock()
	op.cancel(errCancelled)
	return &emptypb.Empty{}, nil
}

// DeleteOperation implements the Operations service: it forgets an operation that has ended.
func (o *operations) DeleteOperation(_ context.Context, req *longrunningpb.DeleteOperationRequest) (*emptypb.Empty, error) {
	op, err := o.find(req.GetName())
	if err != nil {
		return nil, err
	}
	st, m := op.get()
	if !st.Done {
		return nil, &pruneRunningError{m.Model, op.name}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop(op)
	return &emptypb.Empty{}, nil
}

// WaitOperation implements the Operations service: it returns when the operation has ended, or after the timeout, if one
// is given, with the state of that moment.
func (o *operations) WaitOperation(ctx context.Context, req *longrunningpb.WaitOperationRequest) (*longrunningpb.Operation, error) {
	op, err := o.find(req.GetName())
	if err != nil {
		return nil, err
	}
	var timeout <-chan time.Time
	if t := req.GetTimeout(); t != nil {
		if err := t.CheckValid(); err != nil || t.AsDuration() < 0 {
			return nil, badField("timeout", "not a duration to wait for")
		}
		timer := time.NewTimer(t.AsDuration())
		defer timer.Stop()
		timeout = timer.C
	}
	for {
		st, _, changed := op.watch()
		if st.Done {
			return st, nil
		}
		select {
		case <-changed:
		case <-timeout:
			return st, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
