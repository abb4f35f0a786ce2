package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protodelim"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
	"github.com/secateur/secateur/engine/vision"
	"github.com/secateur/secateur/pruner/calib"
)

// calibrationPrefix begins the name of every set; the hash of its content follows.
const calibrationPrefix = "sha256-"

// calibrations keeps the sets: one file each, CalibrationItems with their lengths before them.
type calibrations struct {
	dir string
}

// UploadCalibration implements PruningService.
func (s pruning) UploadCalibration(stream grpc.ClientStreamingServer[secateurv1.UploadCalibrationRequest, secateurv1.UploadCalibrationResponse]) error {
	u, err := s.uploads.begin()
	if err != nil {
		return err
	}
	defer u.end()
	names := map[string]bool{}
	size := int64(0)
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		it := req.GetItem()
		at := fmt.Sprintf("item[%d]", len(names))
		if names[it.GetName()] || it.GetName() == "" || len(it.GetName()) > 256 {
			return badField(at+".name", "%q is empty, longer than 256 bytes or not the first of that name", it.GetName())
		}
		if size += int64(len(it.GetImage()) + len(it.GetMask())); size > s.cfg.MaxCalibrationBytes || len(names) == calib.MaxItems {
			return badField(at, "a set has at most %d images and %d bytes", calib.MaxItems, s.cfg.MaxCalibrationBytes)
		}
		names[it.GetName()] = true
		if err := s.checkItem(stream.Context(), at, it); err != nil {
			return err
		}
		// Only what has been counted and checked: a message may carry fields that are not known here.
		if _, err := protodelim.MarshalTo(u, &secateurv1.CalibrationItem{Name: it.GetName(), Image: it.GetImage(), Mask: it.GetMask()}); err != nil {
			return fmt.Errorf("store calibration set: %w", err)
		}
	}
	name, set, err := s.keepSet(stream.Context(), u)
	if err != nil {
		return err
	}
	s.cfg.Log.Info("calibration set stored", "calibration", name, "images", len(set.Items), "labelled", set.Labelled)
	return stream.SendAndClose(&secateurv1.UploadCalibrationResponse{Calibration: name, Images: uint32(len(set.Items)), Labelled: set.Labelled})
}

// checkItem finds now what would otherwise stop a prune on its way.
func (s pruning) checkItem(ctx context.Context, at string, it *secateurv1.CalibrationItem) error {
	done, err := s.uploads.work(ctx)
	if err != nil {
		return err
	}
	defer done()
	lim := vision.Limits{MaxPixels: s.cfg.MaxPixels}
	img, err := vision.Decode(it.GetImage(), lim)
	if err != nil {
		return under(at+".image", err)
	}
	if len(it.GetMask()) == 0 {
		return nil
	}
	m, err := vision.DecodeMask(it.GetMask(), lim)
	if err != nil {
		return under(at+".mask", err)
	}
	if m.W != img.W || m.H != img.H {
		return badField(at+".mask", "is %d x %d pixels, the image %d x %d", m.W, m.H, img.W, img.H)
	}
	return nil
}

// keepSet stores a set that has arrived under the hash of its content. An image that came twice stays twice in the file.
func (s pruning) keepSet(ctx context.Context, u *upload) (name string, set *calib.Set, err error) {
	done, err := s.uploads.work(ctx)
	if err != nil {
		return "", nil, err
	}
	defer done()
	b, err := u.content()
	if err != nil {
		return "", nil, fmt.Errorf("read calibration set: %w", err)
	}
	items, err := readItems(b)
	if err != nil {
		return "", nil, fmt.Errorf("read calibration set: %w", err)
	}
	if set, err = calib.New(items); err != nil {
		return "", nil, badField("item", "%v", err)
	}
	name = calibrationPrefix + set.Hash
	path := s.sets.path(name)
	if _, err := os.Stat(path); err == nil {
		return name, set, nil
	}
	if err := u.keep(path); err != nil {
		return "", nil, fmt.Errorf("store calibration set: %w", err)
	}
	return name, set, nil
}

func (c *calibrations) path(name string) string { return filepath.Join(c.dir, name+".items") }

// load reads a set, and checks that it is still what its name says. field is the part of the request that named it.
func (c *calibrations) load(field, name string) (*calib.Set, error) {
	hash, ok := strings.CutPrefix(name, calibrationPrefix)
	if !ok || len(hash) != 64 || strings.Trim(hash, "0123456789abcdef") != "" {
		return nil, badField(field, "%q is no name that UploadCalibration gives", name)
	}
	b, err := os.ReadFile(c.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &missingError{resourceCalibration, name}
	}
	if err != nil {
		return nil, fmt.Errorf("read calibration set: %w", err)
	}
	items, err := readItems(b)
	if err != nil {
		return nil, fmt.Errorf("read calibration set %s: %w", name, err)
	}
	set, err := calib.New(items)
	if err != nil {
		return nil, fmt.Errorf("read calibration set %s: %w", name, err)
	}
	if set.Hash != hash {
		return nil, fmt.Errorf("calibration set %s has changed on disk: its hash is %s", name, set.Hash)
	}
	return set, nil
}

// readItems reads CalibrationItems with their lengths before them.
func readItems(b []byte) ([]calib.Item, error) {
	var items []calib.Item
	r := bytes.NewReader(b)
	opt := protodelim.UnmarshalOptions{MaxSize: int64(len(b))}
	for {
		var it secateurv1.CalibrationItem
		err := opt.UnmarshalFrom(r, &it)
		if errors.Is(err, io.EOF) {
			return items, nil
		}
		if err != nil {
			return nil, err
		}
		item := calib.Item{Name: it.GetName(), Image: it.GetImage()}
		if len(it.GetMask()) > 0 {
			item.Mask = it.GetMask()
		}
		items = append(items, item)
	}
}
