package op_test
import ("testing";"github.com/secateur/secateur/engine/kernel";"github.com/secateur/secateur/engine/op";"github.com/secateur/secateur/engine/tensor";"github.com/secateur/secateur/engine/graph")
func BenchmarkD(b *testing.B){
 pool:=kernel.NewPool(2)
 x:=tensor.New(tensor.Float32,1,32,256,256); c:=tensor.New(tensor.Float32,1,32,1,1)
 for _,k:=range []struct{n,op string; a graph.Attrs; in []*tensor.Tensor}{{"add","Add",nil,[]*tensor.Tensor{x,x}},{"mulc","Mul",nil,[]*tensor.Tensor{x,c}},{"concat","Concat",graph.Attrs{graph.IntAttr("axis",1)},[]*tensor.Tensor{x,x}},{"nhwc","Transpose",graph.Attrs{graph.IntsAttr("perm",0,2,3,1)},[]*tensor.Tensor{x}},{"max","Max",nil,[]*tensor.Tensor{x,x}},{"castu8","Cast",graph.Attrs{graph.IntAttr("to",2)},[]*tensor.Tensor{x}}}{
  b.Run(k.n,func(b *testing.B){
   n:=node(k.op,len(k.in),k.a); s:=&op.Site{Node:n,Opset:13,Float:tensor.Float32}
   for _,x:=range k.in{s.In=append(s.In,op.Arg{Type:x.Type()})}
   d,_:=op.Lookup(n,13); s.Out,_=d.Infer(s); kk,_:=d.New(s); y:=tensor.New(s.Out[0].DType,s.Out[0].Shape...)
   f:=kk.Bind(&op.Env{Pool:pool},[]*tensor.Tensor{y},k.in); b.SetBytes(int64(len(y.Data)))
   for b.Loop(){_=f()}
  })
 }
}
