// The ops that `meshard bench` times. Internal to launch/.
#pragma once

namespace meshard {

// An op on blocks of the size that a model of some hundred million parameters gives it.
struct Work {
  const char* what;
  const char* op;
  const char* operands;
  const char* attributes;
  const char* results;
  double share = 1;  // of the op's flops that are asked for: half of an attention's under a causal mask
};

constexpr Work kWorks[] = {
    {"product", "einsum", "f32[1024,768], f32[768,3072]", "{rule = \"i k, k j -> i j\"}", "f32[1024,3072]"},
    {"product, gradient of a", "einsum", "f32[1024,3072], f32[768,3072]", "{rule = \"i j, k j -> i k\"}", "f32[1024,768]"},
    {"product, gradient of b", "einsum", "f32[1024,768], f32[1024,3072]", "{rule = \"i k, i j -> k j\"}", "f32[768,3072]"},
    {"logits", "einsum", "f32[256,768], f32[50257,768]", "{rule = \"i k, v k -> i v\"}", "f32[256,50257]"},
    {"one row", "einsum", "f32[1,768], f32[768,3072]", "{rule = \"i k, k j -> i j\"}", "f32[1,3072]"},
    {"attention of 256", "attention", "f32[4,12,256,64], f32[4,12,256,64], f32[4,12,256,64]", "{causal = true}", "f32[4,12,256,64], f32[4,12,256]", 0.5},
    {"its gradient", "attention_vjp",
     "f32[4,12,256,64], f32[4,12,256,64], f32[4,12,256,64], f32[4,12,256,64], f32[4,12,256], f32[4,12,256,64]", "{causal = true}",
     "f32[4,12,256,64], f32[4,12,256,64], f32[4,12,256,64]", 0.5},
    {"attention of 2,048", "attention", "f32[1,8,2048,64], f32[1,8,2048,64], f32[1,8,2048,64]", "{causal = true}", "f32[1,8,2048,64], f32[1,8,2048]", 0.5},
    {"its gradient", "attention_vjp",
     "f32[1,8,2048,64], f32[1,8,2048,64], f32[1,8,2048,64], f32[1,8,2048,64], f32[1,8,2048], f32[1,8,2048,64]", "{causal = true}",
     "f32[1,8,2048,64], f32[1,8,2048,64], f32[1,8,2048,64]", 0.5},
    {"product, bf16", "einsum", "bf16[1024,768], bf16[768,3072]", "{rule = \"i k, k j -> i j\"}", "bf16[1024,3072]"},
    {"layer norm", "layer_norm", "f32[1024,768], f32[768], f32[768]", "{eps = 1e-05}", "f32[1024,768], f32[1024], f32[1024]"},
    {"its gradient", "layer_norm_vjp", "f32[1024,768], f32[768], f32[1024], f32[1024], f32[1024,768]", "", "f32[1024,768], f32[768], f32[768]"},
    {"gelu", "gelu", "f32[1024,3072]", "", "f32[1024,3072]"},
    {"its gradient", "gelu_vjp", "f32[1024,3072], f32[1024,3072]", "", "f32[1024,3072]"},
    {"gelu, bf16", "gelu", "bf16[1024,3072]", "", "bf16[1024,3072]"},
    {"to bf16", "convert", "f32[1024,3072]", "", "bf16[1024,3072]"},
    {"sum of two", "add", "f32[1024,3072], f32[1024,3072]", "", "f32[1024,3072]"},
    {"cross entropy", "cross_entropy", "f32[256,50257], i32[256]", "", "f32[256], f32[256]"},
    {"its gradient", "cross_entropy_vjp", "f32[256,50257], i32[256], f32[256], f32[256]", "", "f32[256,50257]"},
    {"embedding", "embedding", "i32[4096], f32[4096,768]", "", "f32[4096,768]"},
    {"optimizer", "adamw", "f32[2048,3072], f32[2048,3072], f32[2048,3072], f32[2048,3072], f32[], f32[], f32[]", "{decay = 0.1}",
     "f32[2048,3072], f32[2048,3072], f32[2048,3072]"},
};

// The same for a device with thousands of threads: 32 sequences of 1,024 tokens of a gpt-124m.
constexpr Work kLargeWorks[] = {
    {"product", "einsum", "bf16[32768,768], bf16[768,3072]", "{rule = \"i k, k j -> i j\"}", "bf16[32768,3072]"},
    {"product, gradient of a", "einsum", "bf16[32768,3072], bf16[768,3072]", "{rule = \"i j, k j -> i k\"}", "bf16[32768,768]"},
    {"product, gradient of b", "einsum", "bf16[32768,768], bf16[32768,3072]", "{rule = \"i k, i j -> k j\"}", "bf16[768,3072]"},
    {"product, f32", "einsum", "f32[32768,768], f32[768,3072]", "{rule = \"i k, k j -> i j\"}", "f32[32768,3072]"},
    {"logits", "einsum", "bf16[8192,768], bf16[50304,768]", "{rule = \"i k, v k -> i v\"}", "bf16[8192,50304]"},
    {"one row", "einsum", "bf16[1,768], bf16[768,3072]", "{rule = \"i k, k j -> i j\"}", "bf16[1,3072]"},
    {"attention of 1,024", "attention", "bf16[32,12,1024,64], bf16[32,12,1024,64], bf16[32,12,1024,64]", "{causal = true}",
     "bf16[32,12,1024,64], bf16[32,12,1024]", 0.5},
    {"its gradient", "attention_vjp",
     "bf16[32,12,1024,64], bf16[32,12,1024,64], bf16[32,12,1024,64], bf16[32,12,1024,64], bf16[32,12,1024], bf16[32,12,1024,64]", "{causal = true}",
     "bf16[32,12,1024,64], bf16[32,12,1024,64], bf16[32,12,1024,64]", 0.5},
    {"layer norm", "layer_norm", "f32[32768,768], f32[768], f32[768]", "{eps = 1e-05}", "f32[32768,768], f32[32768], f32[32768]"},
    {"its gradient", "layer_norm_vjp", "f32[32768,768], f32[768], f32[32768], f32[32768], f32[32768,768]", "", "f32[32768,768], f32[768], f32[768]"},
    {"gelu", "gelu", "bf16[32768,3072]", "", "bf16[32768,3072]"},
    {"its gradient", "gelu_vjp", "bf16[32768,3072], bf16[32768,3072]", "", "bf16[32768,3072]"},
    {"to bf16", "convert", "f32[32768,3072]", "", "bf16[32768,3072]"},
    {"sum of two", "add", "f32[32768,3072], f32[32768,3072]", "", "f32[32768,3072]"},
    {"cross entropy", "cross_entropy", "f32[8192,50304], i32[8192]", "", "f32[8192], f32[8192]"},
    {"its gradient", "cross_entropy_vjp", "f32[8192,50304], i32[8192], f32[8192], f32[8192]", "", "f32[8192,50304]"},
    {"embedding", "embedding", "i32[32768], f32[50304,768]", "", "f32[32768,768]"},
    {"optimizer", "adamw", "f32[40480,3072], f32[40480,3072], f32[40480,3072], f32[40480,3072], f32[], f32[], f32[]", "{decay = 0.1}",
     "f32[40480,3072], f32[40480,3072], f32[40480,3072]"},
};

}  // namespace meshard
