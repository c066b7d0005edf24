"""The notebook's cells without their class definitions, as a session with its printed figures."""

from __future__ import annotations

CELLS = """
The price of two apples with tax.

>>> from nnx import AddNode, MulNode, Relu
>>> apple, apple_num, banana, banana_num, tax = 100, 2, 300, 5, 1.1
>>> mul_apple_layer, mul_apple_tax_layer = MulNode(), MulNode()
>>> apple_price = mul_apple_layer.forward(apple, apple_num)
>>> apple_total_price = mul_apple_tax_layer.forward(apple_price, tax)
>>> apple_total_price
220.00000000000003
>>> dapple, dtax = mul_apple_tax_layer.backward(1)
>>> print(dapple); print(dtax)
1.1
200

Five bananas, and the sum.

>>> mul_banana_layer, mul_banana_tax_layer = MulNode(), MulNode()
>>> banana_price = mul_banana_layer.forward(banana, banana_num)
>>> banana_total_price = mul_banana_tax_layer.forward(banana_price, tax)
>>> dbanana, dtax = mul_banana_tax_layer.backward(1)
>>> print(dbanana); print(dtax)
1.1
1500
>>> total_layer = AddNode()
>>> total_layer.forward(apple_total_price, banana_total_price)
1870.0000000000002
>>> total_layer.backward(dout=1)
(1, 1)
>>> print(total_layer.x); print(total_layer.y)
220.00000000000003
1650.0000000000002

The same, taxed once.

>>> mul_apple_layer, mul_banana_layer = MulNode(), MulNode()
>>> add_apple_banana_layer, mul_tax_layer = AddNode(), MulNode()
>>> apple_price = mul_apple_layer.forward(apple, apple_num)
>>> banana_price = mul_banana_layer.forward(banana, banana_num)
>>> all_price = add_apple_banana_layer.forward(apple_price, banana_price)
>>> total_price = mul_tax_layer.forward(all_price, tax)
>>> print(f'apple_price = {apple_price}')
apple_price = 200
>>> print(f'banana_price = {banana_price}')
banana_price = 1500
>>> print(f'all_price = {all_price}')
all_price = 1700
>>> print(f'total_price = {total_price}')
total_price = 1870.0000000000002
>>> dall_price, dtax = mul_tax_layer.backward(1)
>>> dall_price
1.1
>>> dapple_price, dbanana_price = add_apple_banana_layer.backward(dall_price)
>>> dapple_price
1.1
>>> dapple, dapple_num = mul_apple_layer.backward(dapple_price)
>>> print(dapple); print(dapple_num)
2.2
110.00000000000001
>>> dbanana, dbanana_num = mul_banana_layer.backward(dbanana_price)
>>> print(dbanana); print(dbanana_num)
5.5
330.0

Relu on ints. The notebook's own changed x and y here; these stay.

>>> import numpy as np
>>> x = np.array([[-1, 0], [1, 2], [2, 0]])
>>> y = np.array([[7, 6], [-2, 5], [4, 1]])
>>> relu_d = Relu()
>>> relu_d.forward(x)
array([[0, 0],
       [1, 2],
       [2, 0]])
>>> relu_d.backward(y)
array([[ 0,  0],
       [-2,  5],
       [ 4,  0]])
>>> x.tolist(), y.tolist()
([[-1, 0], [1, 2], [2, 0]], [[7, 6], [-2, 5], [4, 1]])
"""

Y_MINUS_T = """
 0.09179273  0.37997585 -0.47176858
 0.26314346 -0.86044518  0.59730172
 0.15898581  0.09182098 -0.25080679
-0.76920511  0.2528827   0.51632241
 0.55685033 -0.78211035  0.22526002
-0.44170283  0.40343413  0.0382687
 0.60360181 -0.77511555  0.17151374
 0.06443593  0.9195728  -0.98400872
 0.11116678  0.12398089 -0.23514766
 0.40199243  0.24352868 -0.64552111
"""
