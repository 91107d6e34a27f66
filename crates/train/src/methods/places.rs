//! Maps as matrices.

use burn::nn::BatchNorm;
use burn::nn::conv::Conv2d;
use burn::prelude::*;

/// Maps with a channel a row, the places of all images behind one another. So a 1x1 convolution is one matrix product, and a channel's mean is
/// taken of one row.
pub struct Places {
    /// `[C,N·h·w]`.
    pub values: Tensor<2>,
    /// Images, height and width.
    pub grid: [usize; 3],
}

impl Places {
    /// Of `[N,C,h,w]`.
    pub fn of(x: &Tensor<4>) -> Places {
        let [n, c, h, w] = x.dims();
        Places { values: x.clone().permute([1, 0, 2, 3]).reshape([c, n * h * w]), grid: [n, h, w] }
    }

    /// `[N,C,h,w]` again.
    pub fn maps(self) -> Tensor<4> {
        let ([n, h, w], c) = (self.grid, self.values.dims()[0]);
        let maps: Tensor<4> = self.values.reshape([c, n, h, w]);
        maps.permute([1, 0, 2, 3])
    }

    /// Changed place by place.
    pub fn map(self, change: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Places {
        Places { values: change(self.values), ..self }
    }

    /// What a change of the values gives, beside these.
    pub fn copied(&self, change: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Places {
        Places { values: change(self.values.clone()), ..*self }
    }

    /// A 1x1 convolution as a matrix product: burn's gradient of a convolution's weight is another convolution, with a kernel
    /// as large as the map.
    pub fn pointwise(self, conv: &Conv2d) -> Places {
        let weight: Tensor<2> = conv.weight.val().flatten(1, 3);
        self.map(|x| {
            let out = weight.matmul(x);
            match &conv.bias {
                None => out,
                Some(bias) => out + bias.val().unsqueeze_dim(1),
            }
        })
    }

    /// As one long image: burn transposes where a channel's values do not lie behind one another.
    pub fn normalised(self, norm: &BatchNorm) -> Places {
        self.map(|x| norm.forward::<3>(x.unsqueeze_dim(0)).squeeze_dim(0))
    }

    /// Nearest neighbour, twice the height and width.
    pub fn doubled(self) -> Places {
        let ([n, h, w], c) = (self.grid, self.values.dims()[0]);
        let x: Tensor<5> = self.values.reshape([c, n * h, 1, w, 1]);
        Places { values: x.expand([c, n * h, 2, w, 2]).reshape([c, 4 * n * h * w]), grid: [n, 2 * h, 2 * w] }
    }
}
