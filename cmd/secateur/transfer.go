package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	secateurv1 "github.com/secateur/secateur/api/secateur/v1"
)

type modelsUploadCmd struct {
	clientFlags
	File    string `arg:"" help:"The ONNX file." type:"existingfile"`
	Name    string `help:"The model's name on the server; by default the file's name without .onnx."`
	Promote bool   `help:"Make it serve at once. The first version of a model always does."`
	Note    string `help:"A note to keep with the version, such as a ticket."`
	JSON    bool   `help:"Print one JSON document."`
}

// Run implements the command.
func (c *modelsUploadCmd) Run(ctx context.Context) error {
	if c.Name == "" {
		c.Name = strings.TrimSuffix(filepath.Base(c.File), ".onnx")
	}
	return c.withModels(func(client secateurv1.ModelServiceClient) error {
		v, err := upload(ctx, client, c.File, &secateurv1.UploadModelHeader{Name: c.Name, Promote: c.Promote, Note: c.Note})
		if err != nil {
			return err
		}
		return printVersion(newVersionInfo(v), c.JSON)
	})
}

// upload sends a file in parts. The header's hash is set here, so that what is stored is what the file holds.
func upload(ctx context.Context, client secateurv1.ModelServiceClient, path string, header *secateurv1.UploadModelHeader) (*secateurv1.ModelVersion, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	header.Sha256 = hex.EncodeToString(h.Sum(nil))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream if reading fails
	s, err := client.UploadModel(ctx)
	if err != nil {
		return nil, err
	}
	err = s.Send(&secateurv1.UploadModelRequest{Part: &secateurv1.UploadModelRequest_Header{Header: header}})
	for buf := make([]byte, chunkSize); err == nil; {
		var n int
		if n, err = f.Read(buf); n > 0 {
			// A message that was sent may not be changed, so each has a chunk of its own.
			if e := s.Send(&secateurv1.UploadModelRequest{Part: &secateurv1.UploadModelRequest_Chunk{Chunk: slices.Clone(buf[:n])}}); e != nil {
				err = e
			}
		}
	}
	// io.EOF ends the file; from Send it says that the server has refused, and CloseAndRecv has the reason.
	if !errors.Is(err, io.EOF) {
		return nil, err
	}
	r, err := s.CloseAndRecv()
	return r.GetVersion(), err
}

type modelsDownloadCmd struct {
	clientFlags
	Name    string `arg:"" optional:"" help:"The model; by default the server's first."`
	Version uint64 `arg:"" optional:"" help:"The version; by default the one that serves."`
	File    string `help:"Which of its files: onnx, report-json or report-html." enum:"onnx,report-json,report-html" default:"onnx"`
	Out     string `help:"Where it goes; by default NAME-VERSION.onnx, .json or .html here."`
	JSON    bool   `help:"Print one JSON document."`
}

// modelFiles maps --file to what the server calls it, and to the suffix it gets.
var modelFiles = map[string]struct {
	file   secateurv1.ModelFile
	suffix string
}{
	"onnx":        {secateurv1.ModelFile_MODEL_FILE_ONNX, ".onnx"},
	"report-json": {secateurv1.ModelFile_MODEL_FILE_REPORT_JSON, ".json"},
	"report-html": {secateurv1.ModelFile_MODEL_FILE_REPORT_HTML, ".html"},
}

// Run implements the command.
func (c *modelsDownloadCmd) Run(ctx context.Context) error {
	return c.withModels(func(client secateurv1.ModelServiceClient) error {
		kind := modelFiles[c.File]
		h, path, err := download(ctx, client, &secateurv1.DownloadModelRequest{Name: c.Name, Version: c.Version, File: kind.file}, c.Out, kind.suffix)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(struct {
				Model   string `json:"model"`
				Version uint64 `json:"version"`
				File    string `json:"file"`
				Bytes   uint64 `json:"bytes"`
				SHA256  string `json:"sha256"`
			}{h.GetVersion().GetModel(), h.GetVersion().GetVersion(), path, h.GetSize(), h.GetSha256()})
		}
		fmt.Printf("%s version %d -> %s, %d bytes, sha256 %s\n", h.GetVersion().GetModel(), h.GetVersion().GetVersion(), path, h.GetSize(), h.GetSha256())
		return nil
	})
}

// download fetches a file, checks its hash and only then puts it in its place. An empty path is named by the version.
func download(ctx context.Context, client secateurv1.ModelServiceClient, req *secateurv1.DownloadModelRequest, path, suffix string) (*secateurv1.DownloadModelHeader, string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream if writing fails
	h, rest, err := receive(ctx, client, req)
	if err != nil {
		return nil, "", err
	}
	if path == "" {
		// Base, because the server's word is not a path to follow anywhere else.
		path = fmt.Sprintf("%s-%d%s", filepath.Base(h.GetVersion().GetModel()), h.GetVersion().GetVersion(), suffix)
	}
	return h, path, replaceFile(path, rest)
}

// receive begins a download. rest writes what follows the header, and fails if its hash is not the one announced.
func receive(ctx context.Context, client secateurv1.ModelServiceClient, req *secateurv1.DownloadModelRequest) (h *secateurv1.DownloadModelHeader, rest func(io.Writer) error, err error) {
	s, err := client.DownloadModel(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	first, err := s.Recv()
	if err != nil {
		return nil, nil, err
	}
	if h = first.GetHeader(); h == nil {
		return nil, nil, errors.New("the server's first message has no header")
	}
	return h, func(w io.Writer) error {
		sum := sha256.New()
		for {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			sum.Write(m.GetChunk())
			if _, err := w.Write(m.GetChunk()); err != nil {
				return err
			}
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != h.GetSha256() {
			return fmt.Errorf("what came has sha256 %s, the server announced %s", got, h.GetSha256())
		}
		return nil
	}, nil
}

// replaceFile writes a file so that at every moment its path holds the old content or the new, whole.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".secateur-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the first error says more
			_ = os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriter(f)
	if err := write(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// replaceBytes is replaceFile for content that is at hand.
func replaceBytes(path string, b []byte) error {
	return replaceFile(path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}
